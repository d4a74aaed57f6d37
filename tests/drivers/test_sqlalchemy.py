"""SQLAlchemy over psycopg, psycopg 2 and asyncpg: its own pool, and objects there and back."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec

import pytest
from drivers.databases import CLIENTS, Database
from sqlalchemy import Engine, ForeignKey, String, create_engine, func, inspect, select, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship, selectinload
from support.parts import refuse


class Base(DeclarativeBase):
    pass


class Author(Base):
    __tablename__ = "author"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(50), unique=True)
    books: Mapped[list["Book"]] = relationship(back_populates="author", cascade="all, delete-orphan")


class Book(Base):
    __tablename__ = "book"
    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]
    author_id: Mapped[int] = mapped_column(ForeignKey("author.id"))
    author: Mapped[Author] = relationship(back_populates="books")


def dialect(database: Database, driver: str) -> str:
    return database.url.replace("postgresql://", f"postgresql+{driver}://")


def write_and_read(engine: Engine, number: int) -> None:
    for turn in range(5):
        name = f"author {number}.{turn}"
        with Session(engine) as session:
            session.add(
                Author(name=name, books=[Book(title=f"{name}, volume {volume}") for volume in range(3)])
            )
            session.commit()
        with Session(engine) as session:
            author = session.scalars(
                select(Author).where(Author.name == name).options(selectinload(Author.books))
            ).one()
            assert sorted(book.title for book in author.books) == [
                f"{name}, volume {volume}" for volume in range(3)
            ]
            author.books.pop()
            with session.begin_nested():
                session.add(Book(title="nested", author=author))
            session.add(Author(name=name))
            with pytest.raises(IntegrityError):
                session.flush()
            session.rollback()
            assert session.scalar(select(func.count()).where(Book.author_id == author.id)) == 3


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2"])
def test_objects_there_and_back(database: Database, driver: str) -> None:
    engine = create_engine(dialect(database, driver), pool_size=CLIENTS)
    Base.metadata.create_all(engine)
    assert set(inspect(engine).get_table_names()) == {"author", "book"}
    with ThreadPoolExecutor(CLIENTS) as threads:
        for result in [threads.submit(write_and_read, engine, number) for number in range(CLIENTS)]:
            result.result(timeout=40)
    with engine.connect() as connection:
        assert connection.scalar(select(func.count()).select_from(Book)) == CLIENTS * 5 * 3
        rows = connection.execution_options(yield_per=10).execute(select(Book.id).order_by(Book.id))
        assert len(rows.all()) == CLIENTS * 5 * 3
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM author"))
    with engine.connect().execution_options(isolation_level="SERIALIZABLE") as connection:
        assert connection.scalar(text("SHOW transaction_isolation")) == "serializable"
    engine.dispose()


async def test_objects_there_and_back_by_asyncpg(database: Database) -> None:
    if find_spec("greenlet") is None:
        refuse("greenlet is not installed: SQLAlchemy needs it for asyncio")
    from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

    engine = create_async_engine(dialect(database, "asyncpg"), pool_size=CLIENTS)
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)

    async def work(number: int) -> None:
        async with AsyncSession(engine) as session:
            for turn in range(5):
                name = f"author {number}.{turn}"
                author = Author(name=name, books=[Book(title=f"volume {each}") for each in range(3)])
                session.add(author)
                await session.commit()
                await session.refresh(author, ["books"])
                assert len(author.books) == 3
                session.add(Author(name=name))
                with pytest.raises(IntegrityError):
                    await session.commit()
                await session.rollback()

    await asyncio.gather(*(work(number) for number in range(CLIENTS)))
    async with engine.connect() as connection:
        assert await connection.scalar(select(func.count()).select_from(Book)) == CLIENTS * 5 * 3
        titles = [row.title async for row in await connection.stream(select(Book.title).order_by(Book.id))]
        assert len(titles) == CLIENTS * 5 * 3
    await engine.dispose()
