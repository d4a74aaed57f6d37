import java.io.StringReader;
import java.io.StringWriter;
import java.sql.BatchUpdateException;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Savepoint;
import java.sql.Statement;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.concurrent.Callable;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import org.postgresql.PGConnection;
import org.postgresql.copy.CopyManager;

/**
 * The JDBC driver as an application uses it, at its defaults: from the fifth execution on it prepares a statement
 * under a name, and from then on asks for binary results. Fails by exception; prints the names of what went well.
 */
public class Driver {
    static final int CLIENTS = 8;
    static final int TURNS = 12; // well over prepareThreshold (5)

    interface Work {
        void run(Connection connection, int number) throws Exception;
    }

    static Connection connect() throws SQLException {
        return DriverManager.getConnection(
            System.getenv("JDBC_URL"), System.getenv("JDBC_USER"), System.getenv("JDBC_PASSWORD"));
    }

    /** Does the work for every client at once, each with a connection of its own. */
    static void everybody(String name, Work work) throws Exception {
        ExecutorService threads = Executors.newFixedThreadPool(CLIENTS);
        List<Future<Void>> results = new ArrayList<>();
        for (int client = 0; client < CLIENTS; client++) {
            int number = client;
            Callable<Void> task = () -> {
                try (Connection connection = connect()) {
                    work.run(connection, number);
                }
                return null;
            };
            results.add(threads.submit(task));
        }
        threads.shutdown();
        for (Future<Void> result : results) {
            result.get();
        }
        System.out.println(name);
    }

    static void check(boolean holds, String what) {
        if (!holds) {
            throw new AssertionError(what);
        }
    }

    static void same(Object expected, Object got) {
        check(expected.equals(got), "expected " + expected + ", got " + got);
    }

    static void fails(String sqlState, Callable<?> action) throws Exception {
        try {
            action.call();
        } catch (SQLException error) {
            same(sqlState, error.getSQLState());
            return;
        }
        throw new AssertionError("no error, expected " + sqlState);
    }

    static Object value(Connection connection, String sql, Object... parameters) throws SQLException {
        try (PreparedStatement statement = connection.prepareStatement(sql)) {
            for (int index = 0; index < parameters.length; index++) {
                statement.setObject(index + 1, parameters[index]);
            }
            try (ResultSet result = statement.executeQuery()) {
                check(result.next(), "a row");
                return result.getObject(1);
            }
        }
    }

    static void preparedStatements(Connection connection, int number) throws Exception {
        String sql = "SELECT owner, ?::int FROM accounts WHERE id = ?";
        try (PreparedStatement shared = connection.prepareStatement(sql);
            PreparedStatement own = connection.prepareStatement("SELECT ?::int * " + number)) {
            for (int turn = 0; turn < TURNS; turn++) {
                shared.setInt(1, turn);
                shared.setInt(2, turn % 10 + 1);
                try (ResultSet result = shared.executeQuery()) {
                    check(result.next(), "a row");
                    same("owner " + (turn % 10 + 1), result.getString(1));
                    same(turn, result.getInt(2));
                }
                own.setInt(1, turn);
                try (ResultSet result = own.executeQuery()) {
                    check(result.next(), "a row");
                    same(turn * number, result.getInt(1));
                }
            }
        }
        // The driver's cache of statements: prepared and closed again and again under the same text.
        for (int turn = 0; turn < TURNS; turn++) {
            same(turn, value(connection, "SELECT ?::int", turn));
            same("text " + turn, value(connection, "SELECT ?::text", "text " + turn));
        }
    }

    static void transactions(Connection connection, int number) throws Exception {
        connection.setAutoCommit(false);
        for (int turn = 0; turn < TURNS; turn++) {
            try (PreparedStatement add =
                connection.prepareStatement("UPDATE accounts SET balance = balance + ? WHERE id = ?")) {
                add.setInt(1, 1);
                add.setInt(2, number + 1);
                same(1, add.executeUpdate());
                Savepoint savepoint = connection.setSavepoint();
                add.setInt(1, -100_000);
                fails("23514", add::executeUpdate);
                fails("25P02", () -> value(connection, "SELECT 1"));
                connection.rollback(savepoint);
                if (turn % 2 == 0) {
                    connection.commit();
                } else {
                    connection.rollback();
                }
            }
        }
        connection.setTransactionIsolation(Connection.TRANSACTION_READ_COMMITTED);
        connection.setReadOnly(true);
        fails("25006", () -> value(connection, "UPDATE accounts SET balance = 0 RETURNING 1"));
        connection.rollback();
    }

    static void errors(Connection connection, int number) throws Exception {
        for (int turn = 0; turn < TURNS; turn++) {
            fails("42601", () -> value(connection, "SELEC"));
            fails("42P01", () -> value(connection, "SELECT * FROM nowhere WHERE a = ?", 1));
            fails("22012", () -> value(connection, "SELECT 1 / ?::int", 0));
            fails("23505", () -> value(connection, "INSERT INTO accounts VALUES (?, 'twice', 0) RETURNING 1", 1));
            same(turn, value(connection, "SELECT ?::int", turn));
        }
    }

    static void batches(Connection connection, int number) throws Exception {
        String insert = "INSERT INTO accounts VALUES (?, ?, ?)";
        int first = 1000 * (number + 1);
        for (boolean autoCommit : new boolean[] {true, false}) {
            connection.setAutoCommit(autoCommit);
            try (PreparedStatement statement = connection.prepareStatement(insert, Statement.RETURN_GENERATED_KEYS)) {
                for (int row = 0; row < 300; row++) {
                    statement.setInt(1, first + row);
                    statement.setString(2, "batch");
                    statement.setInt(3, row);
                    statement.addBatch();
                }
                int[] counts = statement.executeBatch();
                same(300, counts.length);
                check(Arrays.stream(counts).allMatch(count -> count == 1), "one row each");
                int keys = 0;
                try (ResultSet generated = statement.getGeneratedKeys()) {
                    while (generated.next()) {
                        same(first + keys++, generated.getInt(1));
                    }
                }
                same(300, keys);
            }
            if (!autoCommit) {
                connection.commit();
            }
            try (PreparedStatement statement = connection.prepareStatement(insert)) {
                for (int row : new int[] {first + 900, first, first + 901}) { // the second exists
                    statement.setInt(1, row);
                    statement.setString(2, "batch");
                    statement.setInt(3, 0);
                    statement.addBatch();
                }
                statement.executeBatch();
                throw new AssertionError("no error in the batch");
            } catch (BatchUpdateException error) {
                same("23505", error.getSQLState());
            }
            if (!autoCommit) {
                connection.rollback();
            }
            try (Statement statement = connection.createStatement()) {
                statement.addBatch("DELETE FROM accounts WHERE id BETWEEN " + first + " AND " + (first + 899));
                statement.addBatch("DELETE FROM accounts WHERE id BETWEEN " + (first + 900) + " AND " + (first + 999));
                same(300, statement.executeBatch()[0]);
            }
            if (!autoCommit) {
                connection.commit();
            }
        }
    }

    static void rowsInPortions(Connection connection, int number) throws Exception {
        connection.setAutoCommit(false);
        for (int turn = 0; turn < TURNS; turn++) {
            try (PreparedStatement statement =
                connection.prepareStatement("SELECT i FROM generate_series(?::int, 500) i")) {
                statement.setFetchSize(60); // Execute with a limit: the portal is suspended
                statement.setInt(1, number);
                try (ResultSet result = statement.executeQuery()) {
                    int expected = number;
                    while (result.next()) {
                        same(expected++, result.getInt(1));
                        if (expected == 300 && turn % 3 == 0) {
                            break; // closed half-way
                        }
                    }
                    check(turn % 3 == 0 || expected == 501, "all rows");
                }
            }
        }
        connection.commit();
    }

    static void copies(Connection connection, int number) throws Exception {
        CopyManager copies = connection.unwrap(PGConnection.class).getCopyAPI();
        StringBuilder rows = new StringBuilder();
        for (int row = 0; row < 500; row++) {
            rows.append(1000 * (number + 1) + row).append("\tcopied\t").append(row).append('\n');
        }
        same(500L, copies.copyIn("COPY accounts FROM STDIN", new StringReader(rows.toString())));
        StringWriter out = new StringWriter();
        String mine = "SELECT * FROM accounts WHERE id / 1000 = " + (number + 1) + " ORDER BY id";
        same(500L, copies.copyOut("COPY (" + mine + ") TO STDOUT", out));
        same(rows.toString(), out.toString());
        fails("23505", () -> copies.copyIn("COPY accounts FROM STDIN", new StringReader(rows.toString())));
        try (Statement statement = connection.createStatement()) {
            same(500, statement.executeUpdate("DELETE FROM accounts WHERE id / 1000 = " + (number + 1)));
        }
    }

    static void severalStatements(Connection connection, int number) throws Exception {
        for (int turn = 0; turn < TURNS; turn++) {
            try (Statement statement = connection.createStatement()) {
                check(statement.execute("SELECT 1; SELECT 2; UPDATE accounts SET balance = balance WHERE id = 1"), "rows");
                check(statement.getMoreResults(), "more rows");
                check(!statement.getMoreResults(), "a count");
                same(1, statement.getUpdateCount());
            }
        }
    }

    static void timeouts(Connection connection, int number) throws Exception {
        if (number > 1) {
            return;
        }
        try (Statement statement = connection.createStatement()) {
            statement.setQueryTimeout(1); // the driver sends a CancelRequest
            fails("57014", () -> statement.executeQuery("SELECT pg_sleep(30)"));
            statement.setQueryTimeout(0);
        }
        same("alive", value(connection, "SELECT 'alive'"));
    }

    /** A statement that is named on the server when its table gets another column: the driver finds out and recovers. */
    static void ddl(Connection connection, Connection other) throws Exception {
        String sql = "SELECT * FROM accounts WHERE id = ?";
        for (int columns = 3; columns < 6; columns++) {
            for (int turn = 0; turn < TURNS; turn++) {
                for (Connection each : new Connection[] {connection, other}) {
                    try (PreparedStatement statement = each.prepareStatement(sql)) {
                        statement.setInt(1, 1);
                        try (ResultSet result = statement.executeQuery()) {
                            check(result.next(), "a row");
                            same(columns, result.getMetaData().getColumnCount());
                        }
                    }
                }
            }
            try (Statement statement = connection.createStatement()) {
                statement.execute("ALTER TABLE accounts ADD COLUMN more_" + columns + " int");
            }
        }
        System.out.println("ddl");
    }

    public static void main(String[] arguments) throws Exception {
        everybody("preparedStatements", Driver::preparedStatements);
        everybody("transactions", Driver::transactions);
        everybody("errors", Driver::errors);
        everybody("batches", Driver::batches);
        everybody("rowsInPortions", Driver::rowsInPortions);
        everybody("copies", Driver::copies);
        everybody("severalStatements", Driver::severalStatements);
        everybody("timeouts", Driver::timeouts);
        try (Connection connection = connect(); Connection other = connect()) {
            ddl(connection, other);
        }
    }
}
