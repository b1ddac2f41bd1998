// Finds the known word that was probably meant: for options, commands, templates and types.

/** Edits (insert, delete, replace, swap of neighbours) that turn one word into the other. */
export function editDistance(a: string, b: string): number {
  let before: number[] = [];
  let last = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const row = [i];
    for (let j = 1; j <= b.length; j++) {
      const same = a[i - 1] === b[j - 1];
      let edits = Math.min(last[j]! + 1, row[j - 1]! + 1, last[j - 1]! + (same ? 0 : 1));
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1]) edits = Math.min(edits, before[j - 2]! + 1);
      row.push(edits);
    }
    before = last;
    last = row;
  }
  return last[b.length]!;
}

/** Words that may have been meant, or what finds the one that was. */
export type Known = readonly string[] | ((word: string) => string | undefined);

export const meantBy = (word: string, known: Known): string | undefined =>
  typeof known === 'function' ? known(word) : nearest(word, known);

/**
 * The known word nearest to `word`, capitals and dashes ignored; undefined when nothing is near (more than half of the longer word
 * differs).
 */
export function nearest(word: string, known: Iterable<string>): string | undefined {
  const bare = (text: string) => text.toLowerCase().replace(/[-_ ]/g, '');
  let best: string | undefined;
  let least = Infinity;
  for (const candidate of known) {
    const [a, b] = [bare(word), bare(candidate)];
    // a word cut short (`--temp`) means the one that goes on, however much of it is missing
    const edits = b.startsWith(a) && a.length >= 3 ? 0.5 : editDistance(a, b);
    if (edits < least && edits <= Math.max(a.length, b.length) / 2) [best, least] = [candidate, edits];
  }
  return best;
}
