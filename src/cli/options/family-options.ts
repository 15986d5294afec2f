import { type Command, Option } from 'commander';
import { z } from 'zod';
import type { AnyFamily, Families } from '../../pipelines/family.js';

/** An option of a family, and the variable that it sets. */
interface VariableOption {
  readonly family: AnyFamily;
  readonly variable: string;
  readonly option: Option;
  /** Value that the option sets where its flag takes none. */
  readonly value: 'true' | 'false' | undefined;
}

/** Adds the options of every family to a command. @param withCheckpoints the options that name checkpoints are added, too */
export function addFamilyOptions(command: Command, families: Families, withCheckpoints: boolean): void {
  for (const family of families) {
    const [path] = Object.keys(family.options);
    for (const { variable, option } of optionsOf(family)) {
      if (withCheckpoints || variable !== path) command.addOption(option);
    }
  }
}

/** Values of the family options that a command line has, by variable. @param parsed what commander made of the command line */
export function familyVariables(
  parsed: Readonly<Record<string, unknown>>,
  families: readonly AnyFamily[],
): Readonly<Record<string, string>> {
  const variables: Record<string, string> = {};
  for (const { variable, option, value } of families.flatMap(optionsOf)) {
    const given = parsed[option.attributeName()];
    if (given === undefined || (value !== undefined && String(given) !== value)) continue;
    variables[variable] = String(given);
  }
  return variables;
}

function optionsOf(family: AnyFamily): readonly VariableOption[] {
  return Object.entries(family.options).flatMap(([variable, { flags, negative }]) => {
    const schema = family.variables[variable];
    const option = new Option(flags, `${family.title}: ${schema?.description ?? ''} (${variable})`);
    const choices = choicesOf(schema);
    const isSwitch = !/[<[]/.test(flags);
    if (choices !== undefined && !isSwitch) option.choices(choices);
    const value = isSwitch ? 'true' : undefined;
    const positive: VariableOption = { family, variable, option, value };
    if (negative === undefined) return [positive];
    return [
      positive,
      {
        family,
        variable,
        option: new Option(negative.flags, `${family.title}: ${negative.description}`),
        value: 'false',
      },
    ];
  });
}

function choicesOf(schema: z.ZodType | undefined): readonly string[] | undefined {
  const inner = schema instanceof z.ZodOptional || schema instanceof z.ZodDefault ? schema.unwrap() : schema;
  return inner instanceof z.ZodEnum ? inner.options.map(String) : undefined;
}
