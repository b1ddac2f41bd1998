// Texts of all processes, by the one thing that a group can do: sums of numbers.
import type { ProcessGroup } from './group.js';

/** Bytes that a float64 holds exactly. */
const BYTES = 6;

/** The text of every process, by rank, on each of them. Errors: ERR_COLLECTIVE. */
export async function gatherTexts(group: ProcessGroup, text: string): Promise<string[]> {
  if (group.size === 1) return [text];
  const bytes = Buffer.from(text);
  const own = new Array<number>(group.size).fill(0);
  own[group.rank] = bytes.length;
  const lengths = await group.sumNumbers(own);
  const slots = lengths.map((length) => Math.ceil(length / BYTES));
  // everybody gives zeros where the others' texts stand
  const numbers = new Array<number>(slots.reduce((sum, count) => sum + count, 0)).fill(0);
  const starts = slots.map((_, rank) => slots.slice(0, rank).reduce((sum, count) => sum + count, 0));
  for (let i = 0; i < slots[group.rank]!; i++) {
    const part = bytes.subarray(i * BYTES, (i + 1) * BYTES);
    numbers[starts[group.rank]! + i] = part.readUIntLE(0, part.length);
  }
  const all = await group.sumNumbers(numbers);
  return lengths.map((length, rank) => {
    const gathered = Buffer.alloc(slots[rank]! * BYTES);
    for (let i = 0; i < slots[rank]!; i++) gathered.writeUIntLE(all[starts[rank]! + i]!, i * BYTES, BYTES);
    return gathered.toString('utf8', 0, length);
  });
}
