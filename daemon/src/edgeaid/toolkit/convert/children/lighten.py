"""Child (environment tensorflow): prune, cluster, slim and binarise a Keras 3 classifier.

Usage: python lighten.py REQUEST.json

tensorflow-model-optimization 0.8.1 works on models of Keras 2 and cannot load what Keras 3 saves, so both methods are
here: magnitude pruning with a rising share of zeros, and k-means clustering of each kernel, both with fine-tuning.

Request: model, data (.npz: x float32, y classes), sparsity, clusters, channels (share to remove), epochs, teacher
(.keras; "" = the model teaches its slim and binary variants itself), temperature, directory (for <variant>.keras and
<variant>_{float,int8}.tflite), samples (for calibration), answer (variants, and skipped: {variant: why}).
"""

import json
import os
import sys
from importlib import import_module
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import numpy as np
import tensorflow as tf

#: Smaller kernels are left alone: nothing to gain, much to lose.
_MIN_ELEMENTS = 64


def kernels(model: Any) -> list[Any]:
    """Variables to work on."""
    return [
        layer.kernel
        for layer in model.layers
        if getattr(layer, "kernel", None) is not None and int(np.prod(layer.kernel.shape)) >= _MIN_ELEMENTS
    ]


def pruned(values: Any, share: float) -> Any:
    """The smallest `share` of the values set to 0."""
    limit = np.quantile(np.abs(values), share)
    return np.where(np.abs(values) <= limit, 0, values)


def clustered(values: Any, count: int) -> Any:
    """Each value replaced by the centre of its cluster (k-means in one dimension); zeros stay zeros."""
    flat = values.ravel()
    live = flat[flat != 0]
    if not live.size:
        return values
    centres = np.unique(np.quantile(live, np.linspace(0, 1, count)))
    for _ in range(20):
        nearest = np.abs(live[:, None] - centres[None]).argmin(1)
        centres = np.array([live[nearest == i].mean() if (nearest == i).any() else c for i, c in enumerate(centres)])
    nearest = np.abs(flat[:, None] - centres[None]).argmin(1)
    return np.where(flat == 0, 0, centres[nearest]).reshape(values.shape).astype(values.dtype)


def tune(request: dict[str, Any], sparsity: float, clusters: int) -> Any:
    """The model, pruned and/or clustered while it is trained on."""
    model = tf.keras.models.load_model(request["model"], compile=False)
    with np.load(request["data"], allow_pickle=False) as data:
        x, y = data["x"], data["y"]
    if not sparsity and not clusters:
        return model
    sums = np.asarray(model(x[:8], training=False)).sum(-1)
    logits = not np.allclose(sums, 1, atol=1e-2)
    model.compile(
        tf.keras.optimizers.Adam(5e-4), loss=tf.keras.losses.SparseCategoricalCrossentropy(from_logits=logits)
    )
    epochs = request["epochs"]
    for epoch in range(epochs):
        # A cubic ramp: most of the pruning while there is still time to recover.
        share = sparsity * (1 - (1 - (epoch + 1) / epochs) ** 3)
        for kernel in kernels(model):
            value = kernel.numpy()
            value = pruned(value, share) if sparsity else value
            kernel.assign(clustered(value, clusters) if clusters else value)
        masks = [(k.numpy() != 0).astype(np.float32) for k in kernels(model)]

        def keep(batch: int, logs: Any = None, masks: Any = masks) -> None:
            for kernel, mask in zip(kernels(model), masks, strict=True):
                kernel.assign(kernel * mask)

        callback = tf.keras.callbacks.LambdaCallback(on_train_batch_end=keep if sparsity else None)
        model.fit(x, y, batch_size=64, epochs=1, verbose=0, callbacks=[callback])
    for kernel in kernels(model):
        value = kernel.numpy()
        value = pruned(value, sparsity) if sparsity else value
        kernel.assign(clustered(value, clusters) if clusters else value)
    return model


def export(model: Any, name: str, request: dict[str, Any]) -> None:
    """Write the variant in its three forms."""
    directory = request["directory"]
    model.save(os.path.join(directory, f"{name}.keras"))
    spec = tf.TensorSpec([1, *model.inputs[0].shape[1:]], tf.float32, "input")

    def call(value: Any) -> Any:
        return model(value, training=False)

    traced = tf.function(call, input_signature=[spec]).get_concrete_function()
    constants = import_module("tensorflow.python.framework.convert_to_constants")
    frozen = constants.convert_variables_to_constants_v2(traced)
    with np.load(request["data"], allow_pickle=False) as data:
        x = data["x"][: request["samples"]]
    for kind in ("float", "int8"):
        converter = tf.lite.TFLiteConverter.from_concrete_functions([frozen])
        if kind == "int8":
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
            converter.representative_dataset = lambda: ([sample[None]] for sample in x)
            converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
            converter.inference_input_type = converter.inference_output_type = tf.int8
        with open(os.path.join(directory, f"{name}_{kind}.tflite"), "wb") as file:
            file.write(converter.convert())


def main(path: str) -> None:
    with open(path) as file:
        request: dict[str, Any] = json.load(file)
    tf.keras.utils.set_random_seed(3)
    sparsity, clusters = request["sparsity"], request["clusters"]
    variants = {"original": (0.0, 0), "pruned": (sparsity, 0), "clustered": (0.0, clusters),
                "pruned_clustered": (sparsity, clusters)}  # fmt: skip
    for name, (share, count) in variants.items():
        export(tune(request, share, count), name, request)
        print(name, flush=True)
    made, skipped = [*variants], {}
    builds = {"aware": aware, "slim": slimmed, "slim_aware": slim_aware, "binary": binary}
    for name, build in builds.items():
        try:
            export(build(request), name, request)
        except ValueError as error:
            skipped[name] = str(error)
        else:
            made.append(name)
            print(name, flush=True)
    with open(request["answer"], "w") as file:
        json.dump({"variants": made, "skipped": skipped}, file)


def trained(request: dict[str, Any], model: Any, teacher: Any, form: str) -> Any:
    """Train a network on; `form` says to what its weights are rounded meanwhile."""
    with np.load(request["data"], allow_pickle=False) as data:
        pair = data["x"], data["y"]
    training: Any = import_module("aware")
    return training.train(model, pair, request["epochs"], teacher, request["temperature"], form)


def teacher_of(request: dict[str, Any]) -> Any:
    """The network that is asked what it thinks of every picture."""
    return tf.keras.models.load_model(request["teacher"] or request["model"], compile=False)


def aware(request: dict[str, Any]) -> Any:
    """Trained on while its weights and activations are rounded as int8 will round them."""
    model = tf.keras.models.load_model(request["model"], compile=False)
    return trained(request, model, teacher_of(request) if request["teacher"] else None, "int8")


def slimmed(request: dict[str, Any]) -> Any:
    """With fewer channels, taught by the teacher."""
    model = tf.keras.models.load_model(request["model"], compile=False)
    small = import_module("slim").slim(model, request["channels"])
    return trained(request, small, teacher_of(request), "")


def slim_aware(request: dict[str, Any]) -> Any:
    """The slim variant, trained on while it is rounded."""
    return trained(request, slimmed(request), teacher_of(request), "int8")


def binary(request: dict[str, Any]) -> Any:
    """With weights of one bit between the first and the last layer, taught by the teacher."""
    model = tf.keras.models.load_model(request["model"], compile=False)
    return trained(request, model, teacher_of(request), "binary")


if __name__ == "__main__":
    main(sys.argv[1])
