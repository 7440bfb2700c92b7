"""What happens to images between disk and discriminator."""
