// Keeps one core busy while its parent wants it, and ends with its parent.

/** Between two looks at what the parent says. */
const SLICE_MS = 10;

let next: NodeJS.Immediate | undefined;

function spin(): void {
  for (const until = performance.now() + SLICE_MS; performance.now() < until;);
  next = setImmediate(spin);
}

process.on('message', (busy: boolean) => {
  clearImmediate(next);
  if (busy) next = setImmediate(spin);
});
process.on('disconnect', () => process.exit());
process.send!('ready');
