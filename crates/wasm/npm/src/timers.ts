/**
 * Timers that a browser does not slow down: it does so with those of a page in the background, whose session would then be taken for
 * dead. A worker's it leaves alone.
 */
import { platform } from "#platform";

/** Shorter ones are for what the page is looked at for. */
const LONG = 1_000;

/** A timer of the worker's. */
export class WorkerTimer {
  constructor(readonly id: number) {}
}

let worker: Worker | undefined;
let isBroken = false;
let last = 0;
const due = new Map<number, { readonly run: () => void; readonly at: number }>();
/** What the page's own timers do in the place of a worker that has broken. */
const instead = new Map<number, ReturnType<typeof setTimeout>>();

function started(): Worker | undefined {
  if (worker !== undefined || isBroken || typeof document === "undefined" || typeof Worker === "undefined") return worker;
  try {
    worker = platform.timers?.();
  } catch {
    isBroken = true;
  }
  worker?.addEventListener("message", ({ data }: MessageEvent<number>) => {
    const timer = due.get(data);
    due.delete(data);
    timer?.run();
  });
  // A page may forbid it: its own timers have to do then.
  worker?.addEventListener("error", () => {
    worker = undefined;
    isBroken = true;
    for (const [id, { run, at }] of due) instead.set(id, setTimeout(run, Math.max(0, at - Date.now())));
    due.clear();
  });
  return worker;
}

/** A timer of the worker's; none where it is a short one, or there is no worker. */
export function later(run: () => void, millis: number): WorkerTimer | undefined {
  const at = millis < LONG ? undefined : started();
  if (at === undefined) return undefined;
  last += 1;
  due.set(last, { run, at: Date.now() + millis });
  at.postMessage([last, millis]);
  return new WorkerTimer(last);
}

/** Has it not come. */
export function cancel({ id }: WorkerTimer): void {
  due.delete(id);
  clearTimeout(instead.get(id));
  instead.delete(id);
}
