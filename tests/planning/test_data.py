"""What a plan takes a row of a batch to be, where the data is not at hand."""

from plans import TOLD, make_config

from vit_jax.planning.data import describe_data

VIEWS = dict(num_local=3, local_size=4)


def test_a_row_is_what_augmentation_makes_of_an_image():
    def batch(**augment):
        data = dict(image_size=(8, 12), augment=augment)
        return describe_data(make_config(data=data), 0, TOLD, notes := []).batch, notes

    plain, notes = batch()
    assert any("cannot be opened" in note for note in notes)
    assert plain["image"] == ((8, 12, 3), "uint8")
    views, _ = batch(crop="inception", multi_crop=VIEWS)
    assert views["global_images"] == ((2, 8, 12, 3), "uint8")
    assert views["local_images"] == ((3, 4, 4, 3), "uint8")
    assert views.keys() - {"global_images", "local_images"} == plain.keys() - {"image"}
