/**
 * What the wasm calls of the platform's; the build puts these in the place of the globals. So nothing of the wasm is called after
 * a panic, and the trap that a panic ends with is no uncaught exception of the program's: its promises are told. And a heartbeat
 * alone keeps no program from ending: in Node timers hold the process only while a promise of ours is open. In a page the long ones
 * are a worker's, see timers.ts.
 */
import { cancel, later, WorkerTimer } from "./timers.js";
import { awaitedChanged, hasPanicked, isAwaited } from "./panicked.js";

/** A timer of Node's, or a number. */
type Timer = { ref?(): unknown; unref?(): unknown } | number | WorkerTimer;

const globals = globalThis as unknown as {
  setTimeout(run: () => void, millis: number): Timer;
  clearTimeout(timer: Timer): void;
  queueMicrotask(run: () => void): void;
};
const usual = globals.setTimeout;
const never = globals.clearTimeout;
const soon = globals.queueMicrotask;
const timers = new Set<Timer>();

function hold(timer: Timer): void {
  if (typeof timer === "object" && "unref" in timer) isAwaited() ? timer.ref?.() : timer.unref?.();
}

awaitedChanged.tell = () => timers.forEach(hold);

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

function setTimeoutOfOurs(run: () => void, millis: number): Timer {
  const call = guarded(run);
  const slow = later(call, millis);
  if (slow !== undefined) return slow;
  const timer = usual(() => {
    timers.delete(timer);
    call();
  }, millis);
  timers.add(timer);
  hold(timer);
  return timer;
}

function clearTimeoutOfOurs(timer: Timer): void {
  if (timer instanceof WorkerTimer) return cancel(timer);
  timers.delete(timer);
  never(timer);
}

function queueMicrotaskOfOurs(run: () => void): void {
  soon(guarded(run));
}

export { clearTimeoutOfOurs as clearTimeout, queueMicrotaskOfOurs as queueMicrotask, setTimeoutOfOurs as setTimeout };
