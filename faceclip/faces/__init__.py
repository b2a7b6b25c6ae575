"""From a picture to a Face.

pictures: checks of what comes in. face: choosing a face, aligned crops. detect/: who finds faces. align: the crop's
geometry. detail: a face cut out to be painted anew, and pasted back. quality: what is said about a face. preview: the
picture with boxes. choices: what is needed to choose a face by eye.
"""
