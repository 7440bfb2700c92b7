"""Spectral normalization: layers whose kernel is divided by its largest singular value.

Miyato et al., arXiv:1802.05957, section 3. The raw kernel is what is trained; `kernel / sigma` is
computed in every call, and the gradient flows through sigma. (`keras.layers.SpectralNormalization`
overwrites the kernel in every training call and lets no gradient through.) The matrix of a kernel
has one row per output channel, also for transposed convolutions.

    sigma = u' W v,  v = W' u / |W' u|

`u` is a weight that only `power_iteration` moves, so that every pass of a training step uses the
same kernel. Sigma is float32 under mixed precision.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

START_SEED = 1802_05957
START_ITERATIONS = 15  # sigma of random kernels then is 0 to 5 % below the largest singular value
EPSILON = 1e-12  # in norms

# Registered, so that a network that holds another with such layers can be cloned.
_serializable = keras.saving.register_keras_serializable("tfgan_med")


class _Spectral(keras.layers.Layer):
    """What the layers below share: `u` and sigma; comes before the Keras layer in their bases."""

    output_axis = -1  # of the kernel

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        super().build(input_shape)
        self.u = self.add_weight(
            name="u",
            shape=(self.raw_kernel.shape[self.output_axis],),
            initializer=self._start,
            dtype="float32",
            trainable=False,
            autocast=False,
            aggregation="only_first_replica",
        )

    def add_weight(self, *args: Any, **kwargs: Any) -> Any:
        if kwargs.get("name") in ("kernel", "embeddings"):
            kwargs["autocast"] = False  # sigma is computed from the float32 kernel
        return super().add_weight(*args, **kwargs)

    @property
    def raw_kernel(self) -> Any:
        """The trainable kernel before the division."""
        return self.kernel

    def normalized_kernel(self) -> Any:
        """`kernel / sigma` in the compute dtype; its largest singular value is about 1."""
        kernel = ops.cast(self.raw_kernel, "float32")
        return ops.cast(kernel / self.sigma(), self.compute_dtype)

    def sigma(self) -> Any:
        """Largest singular value of the kernel as `u` has it, a float32 scalar, not above it.

        With v as in the formula, u' W v is |W' u|, and its derivative by W, u v', is that of
        the formula with u and v held.
        """
        return _norm(self._back(ops.stop_gradient(self.u)))

    def iterate(self) -> None:
        """One power iteration: v <- W' u / |W' u|, u <- W v / |W v|."""
        self.u.assign(self._iterated(ops.convert_to_tensor(self.u)))

    def _iterated(self, u: Any) -> Any:
        v = self._back(u)
        v = v / _norm(v)
        if self.output_axis == -1:
            u = ops.matmul(ops.reshape(v, (1, -1)), self._blocks())
        else:
            u = ops.sum(ops.matmul(self._blocks(), ops.transpose(v, (0, 2, 1))), axis=0)
        u = ops.reshape(u, (-1,))
        return u / _norm(u)

    def _back(self, u: Any) -> Any:
        """W' u: a column for kernels that end with the output channels, else `(blocks, 1, in)`."""
        if self.output_axis == -1:
            return ops.matmul(self._blocks(), ops.reshape(u, (-1, 1)))
        return ops.matmul(ops.reshape(u, (1, 1, -1)), self._blocks())

    def _blocks(self) -> Any:
        """The float32 kernel as matrices in the order it lies in: one `(in, out)`, or
        `(blocks, out, in)`, one per position of a transposed convolution's window."""
        kernel = ops.cast(self.raw_kernel, "float32")
        shape = kernel.shape
        return ops.reshape(kernel, (-1, *shape[-2:]) if self.output_axis == -2 else (-1, shape[-1]))

    def _start(self, shape: tuple[int, ...], dtype: Any) -> Any:
        """A function of the first kernel: a few iterations from a fixed direction."""
        u = keras.random.normal(shape, seed=START_SEED, dtype="float32")
        for _ in range(START_ITERATIONS):
            u = self._iterated(u)
        return u

    def save_own_variables(self, store: Any) -> None:
        keras.layers.Layer.save_own_variables(self, store)  # convolutions would leave `u` out

    def load_own_variables(self, store: Any) -> None:
        keras.layers.Layer.load_own_variables(self, store)


@_serializable
class SpectralConv2D(_Spectral, keras.layers.Conv2D):
    """`keras.layers.Conv2D` with the kernel `(height, width, in, out)` divided by sigma."""

    def convolution_op(self, inputs: Any, kernel: Any) -> Any:
        return super().convolution_op(inputs, self.normalized_kernel())


@_serializable
class SpectralConv2DTranspose(_Spectral, keras.layers.Conv2DTranspose):
    """`keras.layers.Conv2DTranspose` with the kernel `(height, width, out, in)` over sigma."""

    output_axis = -2

    def call(self, inputs: Any) -> Any:
        outputs = ops.conv_transpose(
            inputs,
            self.normalized_kernel(),
            strides=list(self.strides),
            padding=self.padding,
            output_padding=self.output_padding,
            dilation_rate=self.dilation_rate,
            data_format=self.data_format,
        )
        if self.use_bias:
            channels_last = self.data_format == "channels_last"
            outputs = outputs + ops.reshape(
                self.bias, (1, 1, 1, -1) if channels_last else (1, -1, 1, 1)
            )
        return outputs if self.activation is None else self.activation(outputs)


@_serializable
class SpectralDense(_Spectral, keras.layers.Dense):
    """`keras.layers.Dense` with the kernel `(in, out)` divided by sigma."""

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        outputs = ops.matmul(inputs, self.normalized_kernel())
        if self.use_bias:
            outputs = outputs + self.bias
        return outputs if self.activation is None else self.activation(outputs)


@_serializable
class SpectralEmbedding(_Spectral, keras.layers.Embedding):
    """`keras.layers.Embedding` with the table `(classes, channels)` divided by sigma.

    Shapes: integers `(batch,)` to `(batch, channels)`.
    """

    @property
    def raw_kernel(self) -> Any:
        return self._embeddings

    def call(self, inputs: Any) -> Any:
        # A product with one-hot rows: a gather's gradient would come as slices.
        rows = ops.one_hot(inputs, self.input_dim, dtype=self.compute_dtype)
        return ops.matmul(rows, self.normalized_kernel())


def power_iteration(*networks: keras.Model) -> None:
    """One power iteration for every spectral layer; networks without any are left as they are.

    Called once per training step, before the discriminator's. Works in graphs, under XLA and in
    replicas, whose kernels are equal.
    """
    layers = {id(layer): layer for network in networks for layer in network._flatten_layers()}
    for layer in layers.values():
        if isinstance(layer, _Spectral):
            layer.iterate()


def _norm(x: Any) -> Any:
    """Euclidean norm; the epsilon keeps a kernel of zeros and its gradient finite."""
    return ops.sqrt(ops.sum(ops.square(x)) + EPSILON**2)
