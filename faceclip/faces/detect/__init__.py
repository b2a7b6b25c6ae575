"""Face detectors behind one small interface: a picture in, boxes, scores and five landmarks out.

base: the interface, and the views of a picture that each detector looks at. yunet, insight: the detectors. opencv:
files that OpenCV is trusted with. onnx_file: what an ONNX file asks for, looked at first. upright: a second look at
each face, turned upright. allow: the command that lets the nodes open a detector which is none of the published ones.
"""
