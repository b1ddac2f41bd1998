// What is measured: the tests, and how many things of which unit one run of each does.

export type Test =
  /** Reading a prompt. */
  | { kind: 'prompt'; count: number }
  /** Writing tokens after a prompt of one. */
  | { kind: 'generate'; count: number }
  /** The same in several conversations at once. */
  | { kind: 'chats'; chats: number; count: number }
  /** Encoding a picture that is decoded already. */
  | { kind: 'encode' }
  /** The ViT's part of it. */
  | { kind: 'vit' }
  /** From a picture's file to the first token of an answer about it. */
  | { kind: 'firstToken' };

/** As tables and records name it: `pp512` and `tg64` are llama.cpp's names of these tests. */
export function nameOf(test: Test): string {
  switch (test.kind) {
    case 'prompt':
      return `pp${test.count}`;
    case 'generate':
      return `tg${test.count}`;
    case 'chats':
      return `chats${test.chats}`;
    case 'encode':
      return 'enc';
    case 'vit':
      return 'vit';
    case 'firstToken':
      return 'first';
  }
}

/** What one run does. */
export function doneBy(test: Test): { count: number; unit: string } {
  switch (test.kind) {
    case 'prompt':
    case 'generate':
      return { count: test.count, unit: 'tokens/s' };
    case 'chats':
      return { count: test.chats * test.count, unit: 'tokens/s' };
    case 'encode':
    case 'vit':
      return { count: 1, unit: 'images/s' };
    case 'firstToken':
      return { count: 1, unit: 'answers/s' };
  }
}

/** Ids that differ from turn to turn from the first one on, so that no cached beginning helps. */
export function someIds(count: number, vocabulary: number, turn: number): number[] {
  return Array.from({ length: count }, (_, i) => 3 + ((turn * 7919 + i * 104729) % Math.max(1, vocabulary - 3)));
}

/** The middle of some numbers, which need not be in order. */
export function middle(values: number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const half = sorted.length >> 1;
  return sorted.length % 2 ? sorted[half]! : (sorted[half - 1]! + sorted[half]!) / 2;
}

/** A small rate keeps its digits, where a number of decimals would make it zero. */
export const significant = (value: number): number => Number(value.toPrecision(4));

export const rounded = (value: number, digits = 3): number => Number(value.toFixed(digits));
