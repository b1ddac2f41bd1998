// How far found numbers are from expected ones, and how far they may be.

/** One line of the report. */
export interface StageResult {
  stage: string;
  /** The largest error, in the unit that `unit` names. */
  error: number;
  /** What is allowed; undefined: told for information, never a failure. */
  allowed: number | undefined;
  unit: 'relative' | 'levels' | 'different' | 'ratio' | '1 - cosine';
  pass: boolean;
  /** What the numbers do not say, like where the first difference is. */
  note?: string;
}

export function result(
  stage: string,
  unit: StageResult['unit'],
  error: number,
  allowed: number | undefined,
  note?: string,
): StageResult {
  // NaN is no error that is small enough
  return {
    stage,
    error,
    allowed,
    unit,
    pass: allowed === undefined || error <= allowed,
    ...(note === undefined ? {} : { note }),
  };
}

type Numbers = ArrayLike<number>;

/** The largest absolute difference, as a share of the largest expected magnitude; NaN when lengths differ or something found is no number. */
export function relativeError(found: Numbers, expected: Numbers): number {
  if (found.length !== expected.length) return NaN;
  let error = 0;
  let largest = 0;
  for (let i = 0; i < expected.length; i++) {
    const difference = Math.abs(found[i]! - expected[i]!);
    if (Number.isNaN(difference)) return NaN;
    error = Math.max(error, difference);
    largest = Math.max(largest, Math.abs(expected[i]!));
  }
  return error === 0 ? 0 : error / largest;
}

/** The largest difference of a value, as a share of that value. */
export function elementError(found: Numbers, expected: Numbers): number {
  if (found.length !== expected.length) return NaN;
  let error = 0;
  for (let i = 0; i < expected.length; i++) {
    const difference = Math.abs(found[i]! - expected[i]!);
    if (Number.isNaN(difference)) return NaN;
    if (difference > 0) error = Math.max(error, difference / Math.abs(expected[i]!));
  }
  return error;
}

/** The largest absolute difference; NaN when lengths differ. */
export function largestDifference(found: Numbers, expected: Numbers): number {
  if (found.length !== expected.length) return NaN;
  let error = 0;
  for (let i = 0; i < expected.length; i++) error = Math.max(error, Math.abs(found[i]! - expected[i]!));
  return error;
}

/** The worst row's distance from pointing the same way. */
export function worstCosineDistance(found: Numbers, expected: Numbers, rowLength: number): number {
  if (found.length !== expected.length) return NaN;
  let worst = 0;
  for (let row = 0; row < expected.length; row += rowLength) {
    let product = 0,
      a = 0,
      b = 0;
    for (let i = row; i < row + rowLength; i++) {
      product += found[i]! * expected[i]!;
      a += found[i]! ** 2;
      b += expected[i]! ** 2;
    }
    const distance = 1 - product / Math.sqrt(a * b);
    if (Number.isNaN(distance)) return NaN;
    worst = Math.max(worst, distance);
  }
  return worst;
}

export function squaredError(found: Numbers, expected: Numbers): number {
  let sum = 0;
  for (let i = 0; i < expected.length; i++) sum += (found[i]! - expected[i]!) ** 2;
  return sum;
}

/** How many elements differ (all that one has too many, too), and where the first one is. */
export function compareIds(found: Numbers, expected: Numbers): { different: number; note?: string } {
  let different = Math.abs(found.length - expected.length);
  let first: number | undefined;
  for (let i = 0; i < Math.min(found.length, expected.length); i++) {
    if (found[i] === expected[i]) continue;
    different++;
    first ??= i;
  }
  if (different === 0) return { different };
  const at = first ?? Math.min(found.length, expected.length);
  return { different, note: `first at ${at}: expected ${expected[at] ?? 'the end'}, found ${found[at] ?? 'the end'}` };
}
