/** Whether the wasm has panicked: it takes no calls any more, and whoever waits for it is told. */
import { PanickedError } from "./errors.js";

let panicked: PanickedError | undefined;
const waiting = new Set<(error: PanickedError) => void>();

/** Whether a promise of ours is open. */
export function isAwaited(): boolean {
  return waiting.size > 0;
}

/** Called when the first promise of ours is opened, and when the last is settled. */
export const awaitedChanged: { tell: (() => void) | undefined } = { tell: undefined };

export function hasPanicked(): PanickedError | undefined {
  return panicked;
}

/** Rejects all that wait. */
export function panic(message: string): void {
  panicked = new PanickedError(message);
  for (const reject of waiting) reject(panicked);
  waiting.clear();
  awaitedChanged.tell?.();
}

/** What is begun, but rejected by a panic. */
export function unlessPanicked<T>(begin: () => Promise<T>): Promise<T> {
  return new Promise<T>((resolve, reject) => {
    if (panicked !== undefined) return reject(panicked);
    waiting.add(reject);
    if (waiting.size === 1) awaitedChanged.tell?.();
    const done = () => {
      if (waiting.delete(reject) && waiting.size === 0) awaitedChanged.tell?.();
    };
    attempt(begin).then(
      (value) => (done(), resolve(value)),
      (error: unknown) => (done(), reject(panicked ?? error)),
    );
  });
}

async function attempt<T>(begin: () => Promise<T>): Promise<T> {
  return begin();
}
