#!/usr/bin/env python3
"""The article's experiment in Keras: one backbone on a folder of class folders, frozen or not; a row of `defrost compare`'s results.csv.

Needs: pip install tensorflow-cpu keras

  experiment_keras.py DATA --backbone inceptionv3 --weights notop.h5 --size 160 --epochs 8 --freeze frozen --seed 42

As in the article: global average pooling and softmax on top, SGD at 0.01, 80/20 split with seed 42, the best epoch by validation
accuracy. `--weights random` draws them. One difference: pixels pass the backbone's own preprocess_input, which its weights expect.
"""
import argparse
import os
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")
import keras  # noqa: E402

BACKBONES = {
    "vgg16": (keras.applications.VGG16, keras.applications.vgg16),
    "xception": (keras.applications.Xception, keras.applications.xception),
    "inceptionv3": (keras.applications.InceptionV3, keras.applications.inception_v3),
    "densenet121": (keras.applications.DenseNet121, keras.applications.densenet),
}


class Clock(keras.callbacks.Callback):
    """Seconds of each epoch, validation included."""

    def __init__(self):
        super().__init__()
        self.seconds = []

    def on_epoch_begin(self, epoch, logs=None):
        self.began = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        self.seconds.append(time.perf_counter() - self.began)


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("data")
    ap.add_argument("--backbone", choices=BACKBONES, required=True)
    ap.add_argument("--weights", required=True)
    ap.add_argument("--freeze", choices=["frozen", "unfrozen"], required=True)
    ap.add_argument("--size", type=int, default=160)
    ap.add_argument("--epochs", type=int, default=8)
    ap.add_argument("--batch", type=int, default=16)
    ap.add_argument("--lr", type=float, default=0.01)
    ap.add_argument("--seed", type=int, default=42)
    ap.add_argument("--split-seed", type=int, default=42)
    a = ap.parse_args()

    keras.utils.set_random_seed(a.seed)
    read = lambda subset: keras.utils.image_dataset_from_directory(
        a.data, label_mode="categorical", image_size=(a.size, a.size), batch_size=a.batch,
        validation_split=0.2, subset=subset, seed=a.split_seed, verbose=False)
    train, val = read("training"), read("validation")
    make, module = BACKBONES[a.backbone]
    base = make(include_top=False, weights=None, input_shape=(a.size, a.size, 3))
    if a.weights != "random":
        base.load_weights(a.weights)
    base.trainable = a.freeze == "unfrozen"
    x = keras.layers.GlobalAveragePooling2D()(base.output)
    model = keras.Model(base.input, keras.layers.Dense(len(train.class_names), activation="softmax")(x))
    model.compile(keras.optimizers.SGD(a.lr), "categorical_crossentropy", metrics=["accuracy"])
    ready = lambda part: part.map(lambda x, y: (module.preprocess_input(x), y)).prefetch(2)
    clock = Clock()
    history = model.fit(ready(train), validation_data=ready(val), epochs=a.epochs, callbacks=[clock], verbose=0).history
    best = max(range(a.epochs), key=lambda e: (history["val_accuracy"][e], -e))
    seconds = sum(clock.seconds)
    images = len(train.file_paths) * a.epochs
    print(f"{a.backbone},{a.freeze},{history['val_accuracy'][best]:.6f},{history['val_loss'][best]:.6f},{best + 1},{seconds:.1f},{images / seconds:.2f}")


if __name__ == "__main__":
    main()
