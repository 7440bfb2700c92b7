"""Two logical CPUs stand for two devices; they must exist before TensorFlow computes anything."""

from __future__ import annotations

import tensorflow as tf

_CPU = tf.config.list_physical_devices("CPU")[0]
if len(tf.config.get_logical_device_configuration(_CPU) or []) < 2:
    tf.config.set_logical_device_configuration(_CPU, [tf.config.LogicalDeviceConfiguration()] * 2)
