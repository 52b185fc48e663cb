/**
 * What the wasm calls of the platform's, so that nothing of it is called after a panic, and the trap that a panic ends with is
 * no uncaught exception of the program's: its promises are told. The build puts these in the place of the globals.
 */
import { hasPanicked } from "./panicked.js";

const { setTimeout: later, queueMicrotask: soon } = globalThis;

function guarded(run: () => void): () => void {
  return () => {
    if (hasPanicked()) return;
    try {
      run();
    } catch (error) {
      if (!hasPanicked()) throw error;
    }
  };
}

const setTimeoutGuarded = (run: () => void, millis: number) => later(guarded(run), millis);
const queueMicrotaskGuarded = (run: () => void) => soon(guarded(run));

export { queueMicrotaskGuarded as queueMicrotask, setTimeoutGuarded as setTimeout };
