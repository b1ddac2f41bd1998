// Memory requests of kernels as a GPU counted them beside the emulator's memory report: counters.mjs FOUND EXPECTED OUT. Both are Nsight
// Compute's raw page as CSV; launches of one kernel are added up. Status 1 where a kernel of the report was not counted.
import { readFileSync, writeFileSync } from 'node:fs';

/** Fields of a line of CSV with quotes. */
const fields = (line) =>
  [...line.matchAll(/"((?:[^"]|"")*)"|([^,]+)/g)].map((match) => (match[1] ?? match[2]).replaceAll('""', '"'));

/** "void minigpt4::cuda::<unnamed>::norm_kernel<4>(float *)" and "minigpt4::cuda::norm_kernel<4>" are norm_kernel. */
const plain = (name) =>
  /(\w+)\s*$/.exec(name.replaceAll(/\(anonymous namespace\)::|<unnamed>::/g, '').replace(/[<(].*$/, ''))?.[1] ?? name;

/** Sums by kernel, then by metric. */
function read(path) {
  const lines = readFileSync(path, 'utf8').split('\n');
  const head = lines.findIndex((line) => line.startsWith('"ID"'));
  if (head < 0) throw new Error(`${path}: expected a table whose first column is "ID"`);
  const columns = fields(lines[head]);
  const kernels = new Map();
  for (const line of lines.slice(head + 1)) {
    const values = fields(line);
    if (values.length !== columns.length || !/^\d+$/.test(values[0])) continue; // units, or no line of the table
    const kernel = plain(values[columns.indexOf('Kernel Name')]);
    const sums = kernels.get(kernel) ?? { launches: 0 };
    sums.launches++;
    columns.forEach((column, i) => {
      const value = Number(values[i].replaceAll(',', ''));
      if (column.includes('__') && Number.isFinite(value)) sums[column] = (sums[column] ?? 0) + value;
    });
    kernels.set(kernel, sums);
  }
  return kernels;
}

const memory = (access) => ({
  requests: `l1tex__t_requests_pipe_lsu_mem_global_op_${access}.sum`,
  sectors: `l1tex__t_sectors_pipe_lsu_mem_global_op_${access}.sum`,
  wavefronts: `l1tex__data_pipe_lsu_wavefronts_mem_shared_op_${access}.sum`,
  conflicts: `l1tex__data_bank_conflicts_pipe_lsu_mem_shared_op_${access}.sum`,
});
/** What is compared: sectors a request of global memory, conflicts a wavefront of shared memory. */
const ratios = {
  sectors_a_load: [memory('ld').sectors, memory('ld').requests],
  sectors_a_store: [memory('st').sectors, memory('st').requests],
  conflicts_a_shared_load: [memory('ld').conflicts, memory('ld').wavefronts],
  conflicts_a_shared_store: [memory('st').conflicts, memory('st').wavefronts],
};
const ratio = (sums, [above, below]) =>
  sums?.[above] === undefined ? undefined : sums[below] ? +(sums[above] / sums[below]).toFixed(4) : 0;

const [foundPath, expectedPath, out] = process.argv.slice(2);
const [found, expected] = [read(foundPath), read(expectedPath)];
const rows = [];
let missing = 0;
for (const [kernel, sums] of expected) {
  const row = { kernel };
  for (const [name, parts] of Object.entries(ratios))
    row[name] = { found: ratio(found.get(kernel), parts) ?? null, expected: ratio(sums, parts) };
  if (!found.has(kernel)) missing++;
  rows.push(row);
  console.log(`${kernel}${found.has(kernel) ? '' : ': not counted'}`);
  for (const name of Object.keys(ratios))
    console.log(`  ${name.padEnd(26)} found ${row[name].found ?? '-'}, in the emulator ${row[name].expected}`);
}
writeFileSync(out, rows.map((row) => `${JSON.stringify(row)}\n`).join(''));
process.exitCode = missing === 0 && expected.size > 0 ? 0 : 1;
