// node-postgres as an application uses it, at its defaults: a pool of eight connections, unnamed and named
// statements, transactions, errors, cursors, streams. Fails by exception; prints one line of JSON at the end.
import assert from "node:assert/strict";
import { createRequire } from "node:module";

// (the packages are installed elsewhere: MODULES is their directory)
const require = createRequire(process.env.MODULES + "/");
const pg = require("pg");
const Cursor = require("pg-cursor");
const QueryStream = require("pg-query-stream");

const CLIENTS = 8;
const pool = new pg.Pool({ connectionString: process.env.DATABASE_URL, max: CLIENTS });
const everybody = (work) => Promise.all(Array.from({ length: CLIENTS }, (_, number) => work(number)));
const withClient = async (work) => {
  const client = await pool.connect();
  try {
    return await work(client);
  } finally {
    client.release();
  }
};

const tests = {
  async parameters() {
    await everybody(async (number) => {
      for (let turn = 0; turn < 15; turn++) {
        const { rows } = await pool.query("SELECT owner, $2::int AS turn FROM accounts WHERE id = $1", [number + 1, turn]);
        assert.deepEqual(rows, [{ owner: `owner ${number + 1}`, turn }]);
      }
    });
  },

  async namedStatements() {
    await everybody((number) =>
      withClient(async (client) => {
        for (let turn = 0; turn < 15; turn++) {
          for (const factor of [number, 100]) {
            const query = { name: `times ${factor}`, text: `SELECT $1::int * ${factor} AS product`, values: [turn] };
            assert.equal((await client.query(query)).rows[0].product, turn * factor);
          }
        }
        // The driver itself refuses another text under a name that it has prepared.
        await assert.rejects(client.query({ name: "times 100", text: "SELECT 'other'" }), /must be unique/);
      }),
    );
  },

  async failedNamedStatements() {
    await everybody((number) =>
      withClient(async (client) => {
        const name = `failing ${number}`;
        await assert.rejects(client.query({ name, text: "SELECT * FROM nowhere" }), { code: "42P01" });
        await assert.rejects(client.query({ name, text: "SELEC" }), { code: "42601" });
        assert.deepEqual((await client.query({ name, text: "SELECT 1 AS one" })).rows, [{ one: 1 }]);
        assert.deepEqual((await client.query({ name, text: "SELECT 1 AS one" })).rows, [{ one: 1 }]);
      }),
    );
  },

  async transactions() {
    await everybody((number) =>
      withClient(async (client) => {
        for (let turn = 0; turn < 8; turn++) {
          await client.query("BEGIN");
          await client.query("UPDATE accounts SET balance = balance + $1 WHERE id = $2", [1, number + 1]);
          if (turn % 2) {
            await assert.rejects(client.query("UPDATE accounts SET balance = -1 WHERE id = $1", [number + 1]), {
              code: "23514",
            });
            await assert.rejects(client.query("SELECT 1"), { code: "25P02" });
            await client.query("ROLLBACK");
          } else {
            await client.query("COMMIT");
          }
        }
      }),
    );
    const { rows } = await pool.query("SELECT sum(balance)::int AS sum FROM accounts");
    assert.equal(rows[0].sum, 1000 + 4 * CLIENTS);
  },

  async queriesWithoutWaiting() {
    await withClient(async (client) => {
      const answers = [];
      for (let number = 0; number < 50; number++) {
        answers.push(client.query(number % 2 ? "SELECT $1::int AS number" : `SELECT ${number} AS number`, number % 2 ? [number] : undefined));
      }
      answers.push(assert.rejects(client.query("SELECT 1 / $1::int", [0]), { code: "22012" }));
      answers.push(client.query("SELECT 50 AS number"));
      const results = (await Promise.all(answers)).filter((result) => result !== undefined);
      assert.deepEqual(results.map((result) => result.rows[0].number), Array.from({ length: 51 }, (_, number) => number));
    });
  },

  async severalStatements() {
    const results = await pool.query("SELECT 1 AS a; SELECT 2 AS b; SELECT 3 AS c");
    assert.deepEqual(results.map((result) => result.rows[0]), [{ a: 1 }, { b: 2 }, { c: 3 }]);
  },

  async types() {
    const values = [new Date(0), { a: [1, null] }, Buffer.from([0, 255]), [1, 2], "ünïcödé ☃", null, true, 1.5];
    const text = "SELECT $1::timestamptz t, $2::jsonb j, $3::bytea b, $4::int[] i, $5::text s, $6::int n, $7::bool y, $8::float8 f";
    await everybody(async () => {
      assert.deepEqual(Object.values((await pool.query(text, values)).rows[0]), values);
    });
  },

  async cursors() {
    await everybody((number) =>
      withClient(async (client) => {
        await client.query("BEGIN");
        const cursor = client.query(new Cursor("SELECT i FROM generate_series($1::int, 100) i", [number]));
        const seen = [];
        for (let rows = await cursor.read(7); rows.length; rows = await cursor.read(7)) {
          seen.push(...rows.map((row) => row.i));
        }
        await cursor.close();
        assert.deepEqual(seen, Array.from({ length: 101 - number }, (_, index) => number + index));
        await client.query("COMMIT");
        // Outside of a transaction a portal lives until its Sync: the driver leaves that out while it reads.
        const loose = client.query(new Cursor("SELECT generate_series(1, 20)"));
        assert.equal((await loose.read(5)).length, 5);
        assert.equal((await loose.read(5)).length, 5);
        await loose.close();
        assert.equal((await client.query("SELECT 1 AS one")).rows[0].one, 1);
      }),
    );
  },

  async streams() {
    await everybody((number) =>
      withClient(async (client) => {
        let sum = 0;
        for await (const row of client.query(new QueryStream("SELECT i FROM generate_series(1, $1::int) i", [1000 + number]))) {
          sum += row.i;
        }
        assert.equal(sum, ((1000 + number) * (1001 + number)) / 2);
      }),
    );
  },

  async errorsWithDetails() {
    const error = await pool.query("INSERT INTO accounts VALUES ($1, 'twice', 0)", [1]).catch((error) => error);
    assert.equal(error.code, "23505");
    assert.equal(error.constraint, "accounts_pkey");
    assert.equal(error.detail, "Key (id)=(1) already exists.");
  },

  async notices() {
    await withClient(async (client) => {
      const heard = [];
      client.on("notice", (notice) => heard.push(notice.message));
      await client.query("DO $$BEGIN RAISE NOTICE 'heard'; END$$");
      assert.deepEqual(heard, ["heard"]);
      client.removeAllListeners("notice");
    });
  },

  async timeouts() {
    const client = new pg.Client({ connectionString: process.env.DATABASE_URL, statement_timeout: 200 });
    await client.connect();
    await assert.rejects(client.query("SELECT pg_sleep(30)"), { code: "57014" });
    assert.equal((await client.query("SELECT 1 AS one")).rows[0].one, 1);
    await client.end();
  },
};

const only = process.argv.slice(2);
for (const [name, test] of Object.entries(tests)) {
  if (only.length === 0 || only.includes(name)) {
    try {
      await test();
    } catch (error) {
      console.error(`${name}:`, error);
      process.exitCode = 1;
    }
  }
}
await pool.end();
console.log(JSON.stringify(Object.keys(tests)));
