"""The sentences from which the items of creative writing are drawn, and a passage to compare with."""

from __future__ import annotations

SENTENCES = (
    "The baker counted the last coins and turned off the light.",
    "Nobody had told the children that the pond was frozen.",
    "Her umbrella was still hanging in the hallway a year later.",
    "A blue bicycle leaned against the gate of the empty school.",
    "He read the letter twice before he put it in the oven.",
    "The ferry left without the man in the yellow coat.",
    "Every clock in the repair shop showed a different time.",
    "They agreed to plant tomatoes where the garage used to stand.",
    "The dentist hummed a song that only sailors know.",
    "On the third floor, someone was learning to play the trumpet.",
    "The map turned out to be of another town with the same name.",
    "My grandmother never trusted a soup that was ready in time.",
    "The goat had eaten the invitation and most of the envelope.",
    "By noon the snow had covered every sign along the road.",
    "She painted the kitchen green and told nobody why.",
    "The train stopped between two fields and the lights went out.",
    "He kept the spare key under a stone that looked like a potato.",
    "The librarian wore running shoes on the day of the sale.",
    "Two strangers shared the only dry bench in the park.",
    "The recipe asked for patience, and there was none left in the house.",
    "A radio in the next garden announced the wrong winner.",
    "The tailor found a theatre ticket sewn into the lining.",
    "It took four men and a ladder to bring down the piano.",
    "The dog waited at the bus stop until the evening.",
    "In the morning all the boats were facing the other way.",
    "She signed the form with a pencil and handed back the pen.",
    "The lighthouse keeper's daughter was afraid of the dark.",
    "We ate the birthday cake standing up in the parking lot.",
    "The museum guard knew which of the paintings was a copy.",
    "His left boot was full of sand from a beach he had never visited.",
    "The bees came back on the day the hospital opened.",
    "There was one chair too many at the long table.",
    "The photographer asked everyone to think of a closed door.",
    "An old elevator carried the oranges up to the roof.",
    "The twins exchanged their jackets before the second interview.",
    "The plumber discovered a staircase behind the bathtub.",
    "At the end of the concert the cellist was wearing one glove.",
    "The mayor's speech was shorter than the silence after it.",
    "They named the kitten after a storm that missed the island.",
    "The neighbour returned the ladder with two new rungs.",
    "The chess players did not notice that the café had closed.",
    "A single red balloon drifted over the football field.",
    "The teacher wrote the question on the board and left the room.",
    "The bridge was sold to a family of beekeepers.",
    "Her suitcase held nothing but bread and a wool blanket.",
    "The pharmacist spoke to the plants whenever it rained.",
    "The last page of the diary was written in a different hand.",
    "A taxi driver from the coast won the spelling contest.",
    "The well at the edge of the village had begun to sing.",
    "He whistled all the way home, although it was uphill.",
    "The carpenter built a door before there was a wall.",
    "The swimming pool was full of leaves and one wooden spoon.",
    "The judge borrowed a pair of glasses from the accused.",
    "The window seat stayed empty for the whole flight.",
    "The farmer measured the shadow of the barn with a belt.",
    "Somebody had tuned the street musician's guitar overnight.",
    "The postcard arrived eleven years after the wedding.",
    "The night nurse knew the names of all the passing ships.",
    "The apprentice swept the same corner until the clock struck six.",
    "After the storm the orchard smelled of pepper and salt.",
)
"""Written for this package, about unrelated events. An item's number depends on their order: don't change it."""

PASSAGE = """\
Ida opened the workshop at seven, as her father had done, and put the kettle on the stove. The first customer brought \
a music box that played too slowly, and while she looked for the fault he told her about the house that he had just \
sold. He had found the box in its attic, wrapped in a curtain.

She took out the cylinder and counted its pins. Three of them were bent, and a fourth was missing, so the melody had \
a hole in it that nobody could have guessed at. He hummed what he remembered from his childhood, and she wrote it \
down on the back of an invoice.

By noon she had straightened the pins and made a new one from a sewing needle. The box played through to its end, a \
little faster than before. He listened with his hat in his hands and asked her to play it again, and then once more.

When he had left, she found that he had forgotten the curtain. She folded it and laid it on the shelf beside the \
other things that people had left over the years. It was evening before she noticed that she was still humming."""
"""Coherent, and without sentences of a task: what `judge_writing_relative` compares with, for all tasks the same."""
