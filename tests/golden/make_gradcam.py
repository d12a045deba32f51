#!/usr/bin/env python3
"""Writes gradcam.txt: Grad-CAM maps of the four networks, computed by Keras's GradientTape in double precision.

Weights, pixels and heads are those of make_numbers.py. For each network, layer and image: the class, the largest value of the
map before it is divided by it (in logits), then the map's values from top left, row by row.
"""
import math, os
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import numpy as np, keras, tensorflow as tf
keras.config.set_floatx("float64")
keras.config.set_dtype_policy("float64")
import keras.applications as ka

here = os.path.dirname(os.path.abspath(__file__))
shared = {}
exec(open(os.path.join(here, "make_numbers.py")).read().split("def record")[0], shared)
hashed, weight = shared["hashed"], shared["weight"]

nets = dict(vgg16=(ka.VGG16, ka.vgg16, 39, ["block5_conv3", "block3_conv3"]),
            xception=(ka.Xception, ka.xception, 74, ["block14_sepconv2_act", "block4_sepconv1_act"]),
            inceptionv3=(ka.InceptionV3, ka.inception_v3, 107, ["mixed10", "mixed9_1"]),
            densenet121=(ka.DenseNet121, ka.densenet, 64, ["relu", "conv4_block24_concat"]))
with open(os.path.join(here, "gradcam.txt"), "w") as out:
    print(f"# Keras {keras.__version__}, float64, by make_gradcam.py: network, input size, layer, image, class, peak, map", file=out)
    for name, (make, module, size, layers) in nets.items():
        keras.backend.clear_session()
        base = make(include_top=False, weights=None, input_shape=(size, size, 3))
        logits = keras.layers.Dense(8)(keras.layers.GlobalAveragePooling2D()(base.output))
        model = keras.Model(base.inputs, logits)
        for w in model.weights:
            w.assign(weight(w.path, tuple(w.shape)))
        pixels = (127.5 + 127.5 * hashed("pixels", 3 * size * size * 3)).reshape(3, size, size, 3)
        pixels = pixels.astype(np.float32).astype(np.float64)  # images reach a network as f32
        x = tf.constant(module.preprocess_input(pixels.copy()))
        for layer in layers:
            both = keras.Model(model.inputs, [model.get_layer(layer).output, model.output])
            for image, label in enumerate([5, 0, 3]):
                with tf.GradientTape() as tape:
                    activation, y = both(x[image:image + 1], training=False)
                    score = y[0, label]
                gradient = tape.gradient(score, activation)
                importance = tf.reduce_mean(gradient, axis=(0, 1, 2))
                heat = np.maximum((activation[0] @ importance[:, None]).numpy()[..., 0], 0)
                peak = float(heat.max())
                values = heat / peak if peak > 0 else heat
                print(name, size, layer, image, label, repr(peak), *(repr(float(v)) for v in values.ravel()), file=out)
