"""From faces to a person that can be kept, mixed and compared.

person: several references as one, blending, conditioning. file: a person on disk. header: what such a file says about
itself, read without torch. judge: who compares faces. likeness: how much a picture resembles a person.
"""
