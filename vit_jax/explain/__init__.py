"""A page that shows one model: what it predicts, attends to and has learned, how layers relate.

In the order of reading:

writing.py       from a model and images to the folder with the pictures and the page
contents.py      the table of sections, with the words that explain each
section.py       what a section is, and what it finds
examples.py      images to look at: files, or examples of a split
opening.py       from workdirs, weights and paths to a model and its images
subject.py       the model and the images, and what several sections need to know of them
predicting.py    section: predictions
attending.py     sections: attention maps, rollout, distance
learned.py       sections: patch filters, positions
pointing.py      sections: relevance with its faithfulness, occlusion
representing.py  sections: colours of features, norms of tokens, t-SNE and UMAP
relating.py      sections: similarity of layers, of one model and of two
page.py          the page, one HTML file that needs no other
"""
