"""Plain training of one network with autograd and torch.optim, with which the ensemble engine must agree."""

import numpy as np
import torch
from torch.nn import functional as F

from methods.histograms import BY_NAME
from regcls.losses import class_loss
from regcls.models.mlp import MLP, initial_weights
from regcls.training.ensemble import Recipe
from regcls.training.ensemble_data import Network, stream_seeds


def train_plainly(network: Network, recipe: Recipe, *, by_classes: str = "") -> tuple[MLP, list[float], float]:
    """Train with the engine's initial weights, batches and draws; return the network, its training error by epoch and its last accuracy.

    `by_classes`: a method that predicts by classes alone, in place of `recipe.distribution`. The network then has no regression head.
    """
    dtype = getattr(torch, recipe.precision)
    x, y = torch.from_numpy(network.x.T).to(dtype), torch.from_numpy(network.y).to(dtype)
    model = MLP(x.shape[1], recipe.hidden, network.outputs, activation=recipe.activation)
    model.load_state_dict(initial_weights(x.shape[1], recipe.hidden, network.outputs, network.seed, recipe.initialisation))
    facts = {}
    if recipe.loss:
        recipe.loss.attach(model)
        facts = recipe.loss.facts_of([y.numpy()], dtype=dtype, device="cpu")
    if by_classes:
        model.regressor = None
        histograms = torch.from_numpy(np.stack([BY_NAME[by_classes](target, network.classes.edges) for target in network.y])).to(dtype)
    model.to(dtype)
    make = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}[recipe.optimizer]
    own_rates = recipe.loss.own_rates if recipe.loss else {}
    groups = [{"params": [value for name, value in model.named_parameters() if name not in own_rates]}]
    groups += [{"params": [model.get_parameter(name)], "lr": rate, "weight_decay": 0.0} for name, rate in own_rates.items()]
    optimizer = make(groups, lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, recipe.milestones, recipe.decay)
    order_of, draws_of = (torch.Generator().manual_seed(seed) for seed in stream_seeds(network.seed))
    labels = torch.from_numpy(network.classes.labels(network.y)) if network.classes else None
    seen = len(y) // recipe.batch_size * recipe.batch_size if recipe.drop_last else len(y)
    history, hits = [], 0
    for _ in range(recipe.epochs):
        order = torch.randperm(len(y), generator=order_of)[:seen]
        draws = torch.rand(seen, generator=draws_of) if network.classes and network.classes.keep.min() < 1 else None
        errors, hits = 0.0, 0
        for start in range(0, seen, recipe.batch_size):
            batch = order[start : start + recipe.batch_size]
            predictions = predict_by_classes(model, network, x[batch]) if by_classes else model(x[batch])
            errors += F.mse_loss(predictions, y[batch], reduction="sum").item()
            if by_classes:
                loss = F.cross_entropy(model.classifier(model.features(x[batch])), histograms[batch])
            elif recipe.loss:
                loss = network.lam * recipe.loss.alone(model, predictions, y[batch], None, facts)
                loss = loss * (len(batch) if recipe.loss_over_batch == "sum" else 1)
            else:
                loss = network.lam * F.mse_loss(predictions, y[batch], reduction=recipe.loss_over_batch)
            if network.classes:
                keep = torch.from_numpy(network.classes.keep).float()[labels[batch]]
                kept = None if draws is None else draws[start : start + recipe.batch_size] < keep
                logits = model.classifier(model.features(x[batch]))
                loss = loss if by_classes else loss + class_loss(logits, labels[batch], kept)
                hits += int((logits.argmax(1) == labels[batch]).sum())
            optimizer.zero_grad()
            (recipe.scale * loss).backward()
            optimizer.step()
        scheduler.step()
        for group, rate in zip(optimizer.param_groups[1:], own_rates.values(), strict=True):
            group["lr"] = rate
        history.append(errors / seen)
    return model, history, hits / seen


def predict_by_classes(model: MLP, network: Network, x: torch.Tensor) -> torch.Tensor:
    """The mean of the classes' centres by their predicted probabilities."""
    edges = network.classes.edges
    return model.classifier(model.features(x)).softmax(1) @ torch.from_numpy((edges[1:] + edges[:-1]) / 2).to(x)
