"""Contact sheets: pictures in named columns, one row per item."""

from collections.abc import Mapping, Sequence

from PIL import Image, ImageDraw, ImageFont

MARGIN = 6


def contact_sheet(columns: Mapping[str, Sequence[Image.Image]], side: int = 256) -> Image.Image:
    """Draw columns of pictures with their names above, each picture centred in a square cell.

    Args:
        columns: name -> pictures from the top, the same number in each column.
        side: of a cell in pixels, see `fit_cell`.
    """
    font = ImageFont.load_default(size=max(side // 16, 10))
    head = sum(font.getmetrics()) + MARGIN  # type: ignore[union-attr]  # load_default(size) gives a FreeType font
    rows = max(len(pictures) for pictures in columns.values())
    step = side + MARGIN
    sheet = Image.new("RGB", (len(columns) * step + MARGIN, head + rows * step + MARGIN), "white")
    draw = ImageDraw.Draw(sheet)
    for column, (name, pictures) in enumerate(columns.items()):
        x = MARGIN + column * step
        draw.text((x, MARGIN // 2), name, fill="black", font=font)
        for row, picture in enumerate(pictures):
            cell = fit_cell(picture, side)
            sheet.paste(cell, (x + (side - cell.width) // 2, head + MARGIN + row * step + (side - cell.height) // 2))
    return sheet


def fit_cell(picture: Image.Image, side: int) -> Image.Image:
    """Scale a picture into a square cell.

    A larger picture is reduced; a smaller one is enlarged by the largest whole factor that fits, without interpolation,
    so that its pixels stay visible.
    """
    longest = max(picture.size)
    if longest > side:
        smaller = [max(round(length * side / longest), 1) for length in picture.size]
        return picture.convert("RGB").resize(smaller, Image.Resampling.LANCZOS)
    factor = side // longest
    return picture.convert("RGB").resize([length * factor for length in picture.size], Image.Resampling.NEAREST)
