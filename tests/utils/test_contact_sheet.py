from PIL import Image

from ldm.utils.contact_sheet import MARGIN, contact_sheet


def corner(sheet: Image.Image, column: int, row: int, side: int) -> tuple[int, int]:
    """Of a cell, from the bottom right corner of the sheet, where no text is."""
    columns = (sheet.width - MARGIN) // (side + MARGIN)
    assert column < columns
    return MARGIN + column * (side + MARGIN), sheet.height - (2 - row) * (side + MARGIN)


def test_every_picture_is_in_its_column_and_row():
    colours = {"one": ["red", "lime"], "two": ["blue", "yellow"]}
    sheet = contact_sheet({name: [Image.new("RGB", (8, 8), c) for c in pair] for name, pair in colours.items()}, 32)
    for column, pair in enumerate(colours.values()):
        for row, colour in enumerate(pair):
            x, y = corner(sheet, column, row, 32)
            cell = sheet.crop((x, y, x + 32, y + 32))
            assert cell.getcolors() == [(32 * 32, Image.new("RGB", (1, 1), colour).getpixel((0, 0)))]


def test_small_pictures_are_enlarged_by_whole_factors_and_large_ones_reduced():
    board = Image.new("L", (2, 2))
    board.putdata([0, 255, 255, 0])
    sheet = contact_sheet({"": [board, Image.new("L", (200, 100), 0)]}, 33)
    x, y = corner(sheet, 0, 0, 33)
    assert sheet.crop((x, y, x + 32, y + 32)).resize((2, 2), Image.Resampling.NEAREST).convert("L").tobytes() == (
        board.tobytes()
    )
    assert sheet.crop((x, y, x + 16, y + 16)).getcolors() == [(256, (0, 0, 0))]  # squares, not a slope
    x, y = corner(sheet, 0, 1, 33)
    black = sheet.crop((x, y, x + 33, y + 33)).convert("L").point(lambda v: 255 if v < 128 else 0).getbbox()
    assert (black[2] - black[0], black[3] - black[1]) == (33, 16)
