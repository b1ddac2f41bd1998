// Touches as much memory as its argument says, tells the milliseconds that took, and holds it until its parent ends it.

const PIECE = 2 ** 28;

const wanted = process.argv[2];
const bytes = Number(wanted);
if (!Number.isSafeInteger(bytes) || bytes < 0) throw new RangeError(`expected a number of bytes, found "${wanted}"`);
const held: Buffer[] = [];
const began = performance.now();
for (let left = bytes; left > 0; left -= PIECE) held.push(Buffer.allocUnsafeSlow(Math.min(left, PIECE)).fill(1));
process.on('disconnect', () => process.exit());
process.send!(performance.now() - began);
