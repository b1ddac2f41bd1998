// The doctor's report as a person reads it.
import type { DoctorReport } from './doctor.js';
import type { Spread } from './doctor-tally.js';

const barWidth = 40;
const shownReason = 160;
const shownName = 80;

/** Lines without control characters: names and captions come from files that anybody may have made. */
export function reportText(report: DoctorReport): string {
  const { findings, tokens, pictures } = report;
  const count = (number: number) => number.toLocaleString('en');
  const shards = report.shards === undefined ? '' : `, ${count(report.shards)} shard${report.shards === 1 ? '' : 's'}`;
  const lines = [
    `${report.path}: ${report.format}${shards}, ${count(report.pairs)} ${report.pairs === 1 ? 'pair' : 'pairs'}, ${count(report.usable)} usable` +
      (report.complete ? '' : ' (not all were looked at)'),
  ];
  for (const skipped of [true, false]) {
    const part = findings.filter((finding) => finding.skipped === skipped);
    if (part.length === 0) continue;
    lines.push('', skipped ? 'Training passes over:' : 'Worth a look:');
    for (const { count: found, title, examples, advice } of part) {
      lines.push(`  ${count(found)} ${title}`);
      for (const { name, reason } of examples) lines.push(`      ${cut(name, shownName)}: ${cut(reason, shownReason)}`);
      if (found > examples.length && examples.length > 0)
        lines.push(`      … and ${count(found - examples.length)} more`);
      lines.push(`    ${advice}`);
    }
  }
  if (tokens.spread) {
    const { counter, maxTextLength, endSign, spread } = tokens;
    const sign = JSON.stringify(endSign);
    lines.push(
      '',
      `Tokens of a caption with its end sign ${sign}, as ${counter} counts (max_txt_len ${maxTextLength}):`,
    );
    lines.push(`  ${spreadText(spread)}`);
    const most = Math.max(...tokens.bars.map((bar) => bar.count));
    const widest = String(tokens.bars.at(-1)!.to).length;
    for (const { from, to, count: held } of tokens.bars) {
      const range = `${String(from).padStart(widest)} to ${String(to).padStart(widest)}`;
      const bar = '█'.repeat(Math.ceil((held / most) * barWidth));
      lines.push(`  ${range}  ${bar.padEnd(barWidth)} ${count(held)}`);
    }
  }
  if (pictures.width && pictures.height && pictures.bytes) {
    const kinds = Object.entries(pictures.kinds).map(([kind, number]) => `${count(number)} ${kind}`);
    lines.push('', `Pictures: ${kinds.join(', ')}`);
    lines.push(`  width   ${spreadText(pictures.width)}`);
    lines.push(`  height  ${spreadText(pictures.height)}`);
    lines.push(`  bytes   ${spreadText(pictures.bytes)}`);
  }
  if (findings.length === 0) lines.push('', 'Nothing to complain about.');
  return `${lines.map((line) => line.replace(/[\x00-\x1f\x7f-\x9f]/g, '\ufffd')).join('\n')}\n`;
}

function spreadText({ least, p10, p50, p90, p99, most, mean }: Spread): string {
  return `${least} to ${most}, mean ${mean.toFixed(1)}; 10 % up to ${p10}, half up to ${p50}, 90 % up to ${p90}, 99 % up to ${p99}`;
}

function cut(text: string, most: number): string {
  return text.length > most ? `${text.slice(0, most)}…` : text;
}
