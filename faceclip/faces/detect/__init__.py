"""Face detectors behind one small interface: a picture in, boxes, scores and five landmarks out.

base: the interface, and the views of a picture that each detector looks at. yunet, insight: the detectors. upright: a
second look at each face, turned upright.
"""
