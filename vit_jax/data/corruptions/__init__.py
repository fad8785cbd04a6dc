"""Common corruptions of images: ImageNet-C (arXiv:1903.12261), made as images are read.

corrupt.py does one of them to an image; settings.py says how strongly; the rest are the
corruptions, by the paper's groups: noise.py, blur.py, weather.py (and the textures of it in
textures.py), digital.py; resampling.py is what several of them share.

Each is `name(image, rng, **settings)`: uint8[h, w, c] with c 1 or 3 in, numbers in 0..255 out,
which may lie beyond and are cut off later. A grey image is treated as the colour image of three
equal channels would be, wherever that stays grey.
"""
