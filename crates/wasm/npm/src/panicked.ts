/** Whether the wasm has panicked: it takes no calls any more, and whoever waits for it is told. */
import { PanickedError } from "./errors.js";

let panicked: PanickedError | undefined;
const waiting = new Set<(error: PanickedError) => void>();

export function hasPanicked(): PanickedError | undefined {
  return panicked;
}

/** Rejects all that wait. */
export function panic(message: string): void {
  panicked = new PanickedError(message);
  for (const reject of waiting) reject(panicked);
  waiting.clear();
}

/** What is begun, but rejected by a panic. */
export function unlessPanicked<T>(begin: () => Promise<T>): Promise<T> {
  return new Promise<T>((resolve, reject) => {
    if (panicked !== undefined) return reject(panicked);
    waiting.add(reject);
    const done = () => waiting.delete(reject);
    attempt(begin).then(
      (value) => (done(), resolve(value)),
      (error: unknown) => (done(), reject(panicked ?? error)),
    );
  });
}

async function attempt<T>(begin: () => Promise<T>): Promise<T> {
  return begin();
}
