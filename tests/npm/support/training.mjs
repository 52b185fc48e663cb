// What the tests train, the same for every run: what a step is trained on depends on its number alone. A page loads this text as it
// is, so that it imports nothing.

/** The example of this step. */
export function example(step) {
  const tokens = Int32Array.from({ length: 16 }, (_, at) => (step * 7 + at * 3) % 200);
  return {
    modelInput: tokens,
    lossFnInputs: {
      target_tokens: Int32Array.from(tokens, (token) => (token + 1) % 200),
      weights: new Float32Array(16).fill(1),
    },
  };
}

/** Takes this step, and does what is given between its pass and its update; the loss. */
export async function take(client, step, between) {
  const pass = client.forwardBackward([example(step)], "cross_entropy");
  if (between) await between();
  const update = client.optimStep({ learningRate: 1e-2 });
  const loss = (await pass).metrics["loss:sum"];
  await update;
  return loss;
}

/** Takes these steps, and does what is given before each, which is told its number; the loss of each. */
export async function train(client, from, to, before) {
  const losses = [];
  for (let step = from; step < to; step += 1) {
    before?.(step);
    losses.push(await take(client, step));
  }
  return losses;
}
