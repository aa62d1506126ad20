"""The port of the original in `ldm measure-loading` is sound."""

from random import Random

import numpy as np

from ldm.cli.studies import measure_loading as port


def test_the_ports_windows_and_masks_are_those_of_the_original():
    rng = Random(0)
    for width, height in ((160, 120), (120, 160), (128, 128)):
        for _ in range(200):
            x0, y0 = rng.randrange(width - 40), rng.randrange(height - 40)
            box = (x0, y0, x0 + rng.randint(10, 40), y0 + rng.randint(10, 40))
            grown = port.extend(box, width, height, rng)
            assert grown[0] <= box[0] and grown[1] <= box[1] and grown[2] >= box[2] and grown[3] >= box[3]
            left, top, right, bottom = port.window(grown, width, height, rng)
            if (left, top, right, bottom) != (0, 0, width, height):
                assert right - left == bottom - top
            assert 0 <= left <= grown[0] and 0 <= top <= grown[1] and grown[2] <= right <= width
            mask = np.asarray(port.draw_mask(box, grown, width, height, rng)) > 0
            rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
            assert mask[(box[1] + box[3]) // 2, (box[0] + box[2]) // 2]
            assert rows[-1] <= grown[3] + 5 and columns[-1] <= grown[2] + 5
