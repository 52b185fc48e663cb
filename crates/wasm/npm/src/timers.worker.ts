/** What runs in the worker: it says when the time of a timer has come. */
addEventListener("message", ({ data: [id, millis] }: MessageEvent<[number, number]>) => {
  setTimeout(() => postMessage(id), millis);
});

export {};
