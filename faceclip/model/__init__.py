"""The encoder, exact: faces and a prompt to one conditioning.

faceclip: the model and what comes out of it. config: its sizes. face_encoder, text_tower, fuser: its parts, on the
layers of ops. tokenizer, prompt: from text to tokens. checkpoint: from a file to the model and back.
"""
