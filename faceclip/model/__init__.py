"""The encoder, exact: faces and a prompt to one conditioning.

encoder: the two passes and what comes out of them. faceclip: the model. config: its sizes. face_encoder, text_tower,
fuser: its parts, on the layers of ops. tokenizer, prompt: from text to tokens. checkpoint: from a file to the model and
back.
"""
