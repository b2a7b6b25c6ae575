"""The encoders, exact: faces and a prompt to one conditioning.

encoder: the two passes and what comes out of them, whatever the family. faceclip, facet5: the families. config: their
sizes. face_encoder, text_tower, t5_tower, clip_text, fuser: their parts, on the layers of ops. tokenizer, prompt,
t5_prompt: from text to tokens. syntax: words that do something in other programs only. families: what their files
differ in. checkpoint: from a file to the model and back.

clip_merges.txt.gz is CLIP's list of byte pairs (OpenAI, MIT), those of its vocabulary, without the file's first line;
t5_tokenizer.json.gz is T5's vocabulary (Google, Apache-2.0), the file that FLUX and ComfyUI ship.
"""
