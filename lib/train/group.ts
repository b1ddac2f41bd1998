// The processes of a run, as the training loop sees them.

/** This process among those that train together. One process alone is a group too. */
export interface ProcessGroup {
  readonly rank: number;
  readonly size: number;
  /**
   * The element-wise sums over all processes, the same bits on each: added in float64 in the order of ranks and rounded
   * once. All processes must call it for the same lengths in the same order. Errors: ERR_COLLECTIVE (which rank
   * failed), ERR_CLOSED.
   */
  sum(values: Float32Array): Promise<Float32Array>;
  /** The same in float64, for counts and losses. */
  sumNumbers(values: number[]): Promise<number[]>;
  /** Rejects with ERR_COLLECTIVE as soon as another process is known to be gone; never resolves. */
  readonly failed: Promise<never>;
  /**
   * Tells the others that this process ends as planned, or why it gives up: then theirs fail with that. Waits a moment
   * for their goodbyes.
   */
  close(failure?: Error): Promise<void>;
}

/** The group of a process that trains alone. */
export function alone(): ProcessGroup {
  return {
    rank: 0,
    size: 1,
    sum: async (values) => values,
    sumNumbers: async (values) => values,
    failed: new Promise<never>(() => {}),
    close: async () => {},
  };
}
