// Work on the items of a stream, several at once, with the results in the stream's order.

/**
 * The results of `work` on each item, in order; up to `ahead` items are worked on at once, and no more are taken from the source. An error
 * comes where its result would have come, and ends the stream. Leaving early waits for what is at work: tell it to end by a signal of its own.
 */
export async function* mapAhead<Item, Result>(
  source: AsyncIterable<Item>,
  ahead: number,
  work: (item: Item) => Promise<Result>,
): AsyncGenerator<Result, void, void> {
  const items = source[Symbol.asyncIterator]();
  const running: Promise<Result>[] = [];
  let ended = false;
  try {
    for (;;) {
      while (!ended && running.length < ahead) {
        const next = await items.next();
        if (next.done) {
          ended = true;
          break;
        }
        const result = work(next.value);
        result.catch(() => {}); // it is heard when its turn comes
        running.push(result);
      }
      const first = running.shift();
      if (first === undefined) return;
      yield await first;
    }
  } finally {
    await Promise.allSettled(running);
    if (!ended) await items.return?.();
  }
}
