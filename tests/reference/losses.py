"""The losses as Tinker documents them, differentiated by JAX; and AdamW as torch does it."""

import jax
import jax.numpy as jnp
import numpy as np


def loss(name, config, p, inputs):
    """The loss of one datum whose targets have log-probabilities p."""
    given = {key: jnp.asarray(value, jnp.float64) for key, value in inputs.items()}
    weights = given.get("weights", jnp.ones_like(p))
    if name == "cross_entropy":
        return -jnp.sum(weights * p)
    q, advantages = given["logprobs"], given["advantages"]
    ratio = jnp.exp(p - q)
    low = given.get("clip_low_threshold", config.get("clip_low_threshold"))
    high = given.get("clip_high_threshold", config.get("clip_high_threshold"))
    if name == "importance_sampling":
        gain = ratio * advantages
    elif name == "ppo":
        gain = jnp.minimum(ratio * advantages, jnp.clip(ratio, low, high) * advantages)
    elif name == "cispo":
        gain = jax.lax.stop_gradient(jnp.clip(ratio, low, high)) * p * advantages
    elif name == "dro":
        gain = p * advantages - config["beta"] / 2 * (p - q) ** 2
    else:
        raise ValueError(name)
    return -jnp.sum(weights * gain)


class AdamW:
    """torch.optim.AdamW (amsgrad, maximize: no) after torch.nn.utils.clip_grad_norm_."""

    def __init__(self, parameters, learning_rate, beta1, beta2, eps, weight_decay, grad_clip_norm):
        self.parameters = {name: np.asarray(value, np.float64) for name, value in parameters.items()}
        self.lr, self.betas, self.eps = learning_rate, (beta1, beta2), eps
        self.weight_decay, self.clip = weight_decay, grad_clip_norm
        self.exp_avg = {name: np.zeros_like(value) for name, value in self.parameters.items()}
        self.exp_avg_sq = {name: np.zeros_like(value) for name, value in self.parameters.items()}
        self.step_count = 0

    def step(self, gradients):
        """Takes a step; returns the gradients' norm before clipping."""
        norm = float(np.sqrt(sum(np.sum(np.square(g)) for g in gradients.values())))
        factor = min(1.0, self.clip / (norm + 1e-6)) if self.clip > 0 else 1.0
        self.step_count += 1
        beta1, beta2 = self.betas
        for name, parameter in self.parameters.items():
            gradient = np.asarray(gradients[name], np.float64) * factor
            parameter *= 1 - self.lr * self.weight_decay
            m, v = self.exp_avg[name], self.exp_avg_sq[name]
            m += (1 - beta1) * (gradient - m)
            v += (1 - beta2) * (gradient**2 - v)
            m_hat, v_hat = m / (1 - beta1**self.step_count), v / (1 - beta2**self.step_count)
            parameter -= self.lr * m_hat / (np.sqrt(v_hat) + self.eps)
        return norm
