"""A class loss in a training loop of your own: a plain PyTorch network, balanced classes (Eq. 12, 13) and λ · reg + cls (Eq. 4)."""

import numpy as np
import torch

from regcls.classes import class_ranges
from regcls.losses import reg_cls

rng = np.random.default_rng(0)
x = rng.normal(size=(2000, 4)).astype(np.float32)
y = (np.exp(x[:, 0]) + x[:, 1] + 0.1 * rng.normal(size=2000)).astype(np.float32)  # few targets are large
train, test = slice(0, 1500), slice(1500, None)

ranges = class_ranges(20, y[train], balanced=True)  # of training targets only; len(ranges) classes are left after merging
labels, inputs, targets = (torch.from_numpy(array[train]) for array in (ranges.labels(y), x, y))

torch.manual_seed(0)
trunk = torch.nn.Sequential(torch.nn.Linear(4, 64), torch.nn.ReLU(), torch.nn.Linear(64, 32), torch.nn.ReLU())
regressor, classifier = torch.nn.Linear(32, 1), torch.nn.Linear(32, len(ranges))  # the classifier is for training only
network = torch.nn.ModuleList([trunk, regressor, classifier])
optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)
for _ in range(30):
    for batch in torch.randperm(1500).split(64):
        features = trunk(inputs[batch])
        kept = torch.from_numpy(ranges.kept(labels[batch].numpy(), rng.random(len(batch))))  # frequent classes are kept less often
        loss = reg_cls(regressor(features)[:, 0], targets[batch], classifier(features), labels[batch], kept, lam=10.0)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

with torch.inference_mode():
    predictions = regressor(trunk(torch.from_numpy(x[test])))[:, 0].numpy()
rmse = float(np.sqrt(np.mean((predictions - y[test]) ** 2)))
print(f"test RMSE {rmse:.3f}, of the mean {y[test].std():.3f}")
