// A table of rows, shown and written as Markdown and JSON.
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { root } from '@iot/stack/prepare'

/** @param dir relative to the repository's root @returns the table and where it is */
export function writeReport<T extends Record<string, string | number>>(
  rows: T[],
  { dir, name, heading, command }: { dir: string; name: string; heading: string; command: string },
): string {
  const columns = Object.keys(rows[0] ?? {})
  const line = (cells: (string | number)[]) => `| ${cells.join(' | ')} |`
  const table = [
    line(columns.map((column) => column.replaceAll('_', ' '))),
    line(columns.map((column) => (typeof rows[0]?.[column] === 'string' ? '---' : '---:'))),
    ...rows.map((row) => line(columns.map((column) => row[column] as string | number))),
  ].join('\n')
  const out = join(root, dir)
  mkdirSync(out, { recursive: true })
  writeFileSync(join(out, `${name}.md`), `\`${command}\`: ${heading}\n\n${table}\n`)
  writeFileSync(join(out, `${name}.json`), `${JSON.stringify({ command, rows }, null, 2)}\n`)
  return `${table}\n\nwritten to ${join(dir, name)}.md and .json`
}
