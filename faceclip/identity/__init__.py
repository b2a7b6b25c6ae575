"""From faces to a person that can be kept, mixed and compared.

person: several references as one, blending, conditioning. file: a person on disk. header: what such a file says about
itself, read without torch. shelf: the saved people of a folder, looked through, renamed, brought in. judge: who
compares faces. likeness: how much a picture resembles a person. chart: likeness against a swept value.
"""
