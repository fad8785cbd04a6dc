"""(classes, training images) of data that is not at hand: `Row.data`, which counts need.

JFT   JFT-300M: 18,291 classes (arXiv:1707.02968, section 3), which arXiv:2010.11929, section 4.1,
      rounds to 18k; 303 million images are that section's own number.
I21K  ImageNet-21k as TFDS has it, 14,197,122 images, without the first 51,200, which
      configs/pretrain_i21k.py holds out.
I1K   ImageNet-1k: the training split of ILSVRC-2012 (arXiv:1409.0575). I1K_99 is its first 99 %;
      the rest chooses settings (configs/pretrain_i1k.py).
"""

JFT = (18_291, 303_000_000)
I21K = (21_843, 14_145_922)
I1K = (1_000, 1_281_167)
I1K_99 = (1_000, 1_268_355)
