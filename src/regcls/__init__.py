"""Does a classification loss next to the regression loss help on imbalanced continuous targets?"""
