"""From folders of photos with captions to the webdataset shards that training reads: `python -m faceclip prepare`.

    photos        which photos and captions there are, in a fixed order
    crops         one photo -> a sample, or why not
    shard_writer  complete-or-absent tar files
    mix           who is who, and the samples of all photos in a random order
    shard_job     all of them, over several processes
    ray_blocks    the same on the machines of a Ray cluster
    command       what the command line says

A sample is KEY.jpg or KEY.png (the photo: the file's own bytes, with all that its EXIF tells, unless it had to be made
smaller or turned), KEY.face0.png, KEY.face1.png, ... (aligned crops of 448 x 448 px, the largest face first),
KEY.face0.other0.png, ... (faces of the same person on other photos, where people are known) and KEY.json::

    {"caption": str, "size": [w, h], "source": path below the folder of photos,
     "faces": [{"box": [x0, y0, x1, y1], "landmarks": [[x, y], ...5], "score", "sharpness", "yaw", "person"}, ...]}

with boxes and landmarks in px of the photo as it lies in the sample, and null for a person who is not known. Paths that
lead out of the folders are refused.
"""
