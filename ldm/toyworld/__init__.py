"""ToyWorld: a drawn world of small scenes, with a judge that grades edits of them."""
