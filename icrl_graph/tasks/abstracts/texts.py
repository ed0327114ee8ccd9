"""Titles and abstracts of papers that were never written."""

from __future__ import annotations

from typing import NamedTuple


class Paper(NamedTuple):
    """A paper: what a task says of it, and what an answer is compared with."""

    title: str
    abstract: str


PAPERS = (
    Paper(
        "Counting Before Caching: Admission by Predicted Reuse in Small Edge Caches",
        "Caches at the edge of a network are small, so what is not admitted matters more than what is evicted. We "
        "train a linear predictor of the time until an object is asked for again from four counters that every "
        "cache keeps anyway, and admit an object only if that time is shorter than the age of the object that "
        "would be evicted. On traces of three content providers the rule raises the hit rate of an LRU cache of 1 "
        "GB from 31 to 38 percent, within 2 points of an offline optimum. It adds 24 bytes per object and less "
        "than a microsecond per request. We show that most of the gain comes from refusing objects that are asked "
        "for once, and that the predictor can be trained on one day and used for five weeks before its advantage "
        "is halved.",
    ),
    Paper(
        "How Much Does a Code Review Comment Cost? A Study of Waiting Times in 14 Projects",
        "Review is said to find defects cheaply, but the time for which a change waits is seldom counted. We "
        "follow 61,000 changes of 14 open source projects and estimate, with a survival model, by how much each "
        "comment delays a merge. A comment on naming delays a change by a median of 5 hours, one on behaviour by "
        "19 hours, and a question by 31 hours, because nobody knows who has to act. Automatic formatting removes "
        "a third of all comments and shortens the median wait by 11 percent. Changes that wait for more than a "
        "week are abandoned three times as often, whatever was said about them. We suggest that reviewers mark "
        "which comments block a merge, and report a trial in two projects in which this halved the delay of "
        "questions.",
    ),
    Paper(
        "Robust Localization of Warehouse Robots from Ceiling Lamps Alone",
        "Warehouses change every day, but their ceilings do not. We present a method that localizes a robot from "
        "an upward camera by the pattern of lamps. The lamps are detected by thresholding, matched to a map by a "
        "geometric hash of triples, and tracked by a particle filter that expects some lamps to be broken. In a "
        "hall of 9,000 square meters the mean error is 4 centimeters over 120 kilometers of travel, and the robot "
        "recovers from being carried to another aisle within 3 seconds. Performance is unchanged with 20 percent "
        "of the lamps switched off and degrades gracefully up to 60 percent. The method runs at 30 frames per "
        "second on a processor without a graphics unit, and the map is built in one drive through the hall.",
    ),
    Paper(
        "Teaching Recursion with Folded Paper: A Controlled Classroom Experiment",
        "Beginners often trace a recursive function as if it were a loop. We let students fold strips of paper, "
        "in which each fold stands for a call and each unfolding for a return, before they see any code. In an "
        "experiment with 212 students in eight sections, randomized by section, those who had folded paper solved "
        "68 percent of tracing tasks a week later, against 51 percent of those who had watched an animation for "
        "the same time. The difference was largest for functions that call themselves twice. No difference was "
        "found in writing recursive functions. Interviews suggest that the paper makes visible that a call waits "
        "for its result. The material costs nothing and takes one lesson of 45 minutes.",
    ),
    Paper(
        "Sparse Updates for Federated Speech Recognition on Phones with Little Memory",
        "Federated training of speech recognition excludes phones that can't hold the gradients of the whole "
        "model. We let each phone train a random sixteenth of the layers per round, chosen by its free memory, "
        "and correct the average on the server for how often each layer was trained. Peak memory falls from 1.9 "
        "GB to 340 MB, and phones that make up 43 percent of the users in our study can take part. With them the "
        "word error rate of speakers with a regional accent falls from 17.2 to 14.8 percent, while that of all "
        "others stays the same. Convergence takes 1.4 times as many rounds, but each round is shorter, so that "
        "the time to the same error rate is 12 percent lower. An ablation shows that without the correction rare "
        "layers stop to improve.",
    ),
    Paper(
        "A Type System That Tracks Units of Time in Embedded Programs",
        "Mistaking milliseconds for ticks is a common fault in embedded software, and compilers do not see it. We "
        "give a type system in which every duration carries its clock and its unit, and conversions are inserted "
        "only where they lose nothing. Inference needs annotations at the boundary of a module alone. We prove "
        "that well typed programs never compare times of different clocks, and implement the system as a checker "
        "for C. On 27 open source drivers with 190,000 lines it needs one annotation per 310 lines and reports 64 "
        "errors, of which 41 were confirmed by the maintainers; nine of them let a watchdog expire. Checking "
        "takes 7 seconds for the largest driver. False alarms are mostly due to counters that wrap around on "
        "purpose.",
    ),
    Paper(
        "Do Readers Notice? Detecting Machine Translated Captions in Museum Apps",
        "Museums translate captions by machine because they can't afford translators for every language. We ask "
        "whether visitors notice. 480 visitors of four museums read captions in their first language, half of "
        "them translated by machine and half by professionals, without knowing which. They told the two apart in "
        "54 percent of cases, little better than chance, but rated the machine's captions as less pleasant and "
        "remembered 9 percent fewer facts from them an hour later. Names of techniques and titles of works "
        "account for most of the difference. A glossary of 200 terms per museum removes two thirds of it. We "
        "conclude that readers do not notice bad captions, but learn less from them, and that a small glossary is "
        "worth more than a larger model.",
    ),
    Paper(
        "Fast Exact Diameter of Road Networks by Pruned Sweeps",
        "The diameter of a graph is the longest of its shortest paths. On road networks with millions of nodes it "
        "has been approximated, since the textbook algorithm starts a search at every node. We order nodes by an "
        "upper bound of their eccentricity, taken from distances to a few landmarks at the border, and stop as "
        "soon as no bound exceeds the longest path found. Each search is pruned by the same bounds. On the "
        "network of Europe, with 18 million nodes, the exact diameter is found in 41 seconds by 23 searches, "
        "where the best known method needs 19 minutes. We prove that the number of searches is constant for a "
        "model of planar networks with highways, and show on random graphs, which have no border, that the method "
        "offers no advantage there.",
    ),
    Paper(
        "Backpressure for Language Model Agents That Share One Tool",
        "When many agents share a slow tool, such as a browser or a simulator, they wait, time out and try again, "
        "which makes the queue longer. We measure this collapse with up to 256 agents and one simulator: beyond "
        "40 agents the number of tasks done per hour falls by 72 percent. We propose that the tool tell each "
        "agent how long it will wait, in words, together with a cheaper alternative. Agents that were told so "
        "chose the alternative in 38 percent of cases and asked again half as often. The throughput no longer "
        "falls with the number of agents, and the success rate of tasks is within one point of that without "
        "contention. A rate limit alone, of which agents know nothing, avoids the collapse but leaves a fifth of "
        "the tasks unfinished.",
    ),
    Paper(
        "Privacy of Smart Water Meters: What One Reading per Hour Reveals",
        "Utilities argue that water meters that are read once an hour reveal little about a household. We test "
        "this with readings of 1,150 homes over a year and the diaries of 90 of them. From hourly readings alone "
        "a simple classifier tells whether anybody was at home with 91 percent accuracy, the number of residents "
        "with 74 percent, and a night shift with 88 percent. Daily readings reveal holidays only. Adding noise to "
        "each reading protects residents until about two weeks of it are averaged. We propose meters that send "
        "the total of a day at once, keep hourly readings for leaks on the device, and show that leaks of more "
        "than 6 liters per hour are still found within a day. Nine of ten leaks in our data would have been "
        "reported.",
    ),
    Paper(
        "Learning to Say Unknown: Abstention in Herbarium Species Identification",
        "Herbaria hold millions of sheets without a name. Classifiers assign one to each of them, also to species "
        "that they have never seen. We train a classifier of 8,400 species together with a rule for abstaining, "
        "whose threshold depends on how many sheets of a genus were seen in training. At the same accuracy of 95 "
        "percent on what is named, our rule names 71 percent of the sheets, a single threshold 58 percent. Of "
        "sheets of species that were left out of training it abstains on 83 percent. Botanists who checked 2,000 "
        "abstentions found 14 specimens that had been filed under a wrong family for decades, and two that may be "
        "new to science. We release the weights and the list of sheets, but not the images of protected plants.",
    ),
    Paper(
        "Rendering Knitted Fabric in Real Time from Stitch Patterns",
        "Knitted fabric is hard to render, because its look depends on the path of a single yarn. We precompute "
        "the scattering of light in each of 40 stitches, store it as a small table, and blend the tables of "
        "neighbours by the tension between them. A garment of a million stitches is drawn in 6 milliseconds on a "
        "laptop, with an error of 3 percent against a path traced reference that takes 40 minutes. Patterns are "
        "read from the charts that knitters use, so no modelling is needed. In a study 24 knitters named the "
        "stitch in our pictures as reliably as in photographs. The method does not handle loose ends or felted "
        "wool, and shadows between layers that are farther apart than two stitches are missing.",
    ),
)
"""Written for this package; nothing in them was measured. An item's number depends on their order: don't change it."""
