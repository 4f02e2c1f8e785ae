"""How the readers of Label Studio and LabelMe are broken on purpose."""

CORE = [
    (
        "data/annotation_formats/brush_rle.py",
        "word = bits.read(32), bits.read(5) + 1",
        "word = bits.read(32), bits.read(5)",
        "test_label_tools",
    ),
    (
        "data/annotation_formats/brush_rle.py",
        ".astype(np.int64) // 4)",
        ".astype(np.int64) + 3) // 4",
        "test_label_tools",
    ),
    ("data/annotation_formats/brush_rle.py", "if count != 4 * area:", "if False:", "test_label_tools"),
    ("data/annotation_formats/brush_rle.py", "    if bits.has_data_left():", "    if False:", "test_label_tools"),
    ("data/annotation_formats/brush_rle.py", "if at + length > count:", "if False:", "test_label_tools"),
    ("data/annotation_formats/outlines.py", "max(1.25 * max(radii), 8.0)", "8.0", "test_label_tools"),
    (
        "data/annotation_formats/outlines.py",
        "centre[0] + x * cos - y * sin",
        "centre[0] + x * cos + y * sin",
        "test_label_tools",
    ),
    (
        "data/annotation_formats/outlines.py",
        "(-high * sin, high * cos)",
        "(high * sin, high * cos)",
        "test_label_tools",
    ),
    ("data/annotation_formats/outlines.py", "if png_size != size or", "if False and", "test_label_tools"),
    (
        "data/annotation_formats/label_studio_shapes.py",
        'if value.get("closed") is False:',
        "if False:",
        "test_label_tools",
    ),
    (
        "data/annotation_formats/label_studio_names.py",
        "names = [clean(local[0])]",
        "names = [address]",
        "test_label_tools",
    ),
    (
        "data/annotation_formats/label_studio_tasks.py",
        "max(truth or valid, key=_when)",
        "max(valid, key=_when)",
        "test_label_tools",
    ),
    (
        "data/annotation_formats/label_studio_tasks.py",
        'if not each.get("was_cancelled")',
        "if True",
        "test_label_tools",
    ),
    ("data/annotation_formats/label_studio_tasks.py", 'or row.get("annotation_id", 0) is None', "", "test_label_tools"),
    ("data/annotation_formats/label_studio.py", "or len(task.pictures) > 1 else", "else", "test_label_tools"),
    (
        "data/annotation_formats/label_studio.py",
        "elif item_size is not None and item_size != size:",
        "elif False:",
        "test_label_tools",
    ),
    ("data/annotation_formats/labelme.py", "alone = group is None or", "alone = True or", "test_label_tools"),
    ("data/annotation_formats/labelme.py", "np.logical_or.reduce(masks)", "masks[0]", "test_label_tools"),
    ("data/annotation_formats/labelme.py", "y0 : y1 + 1, x0 : x1 + 1", "y0 - 1 : y1, x0 : x1 + 1", "test_label_tools"),
    (
        "data/annotation_formats/labelme_xml.py",
        "return 2 * sum(labelme_like) > len(labelme_like)",
        "return False",
        "test_label_tools",
    ),
]
